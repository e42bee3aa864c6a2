#include "kernels/cuda/attention_cudnn.h"

#include <cudnn_frontend.h>

#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "kernels/cuda/workspace.h"
#include "llmz/core/error.h"
#include "llmz/core/log.h"

// cuDNN runs graphs of operations, built for sizes and strides and then executed with addresses. It names sizes
// [B,heads,S,D] whatever their order in memory, so llmz's [B,S,heads,D] is a matter of strides.
//
// A deterministic backward keeps a matrix of queries × keys before Blackwell, so it gets the batch in pieces that
// bound it (attention_backward_piece).

namespace llmz::cuda {
namespace {

namespace fe = cudnn_frontend;
using Attributes = fe::graph::Tensor_attributes;
using Handle = std::shared_ptr<Attributes>;

enum Name : int64_t { kQ = 1, kK, kV, kOut, kLse, kDout, kDq, kDk, kDv };

/// cuDNN finds the tensors of a call by these names.
using Addresses = std::unordered_map<int64_t, void*>;
using Key = std::vector<int64_t>;

/// Up to this version, backward at lengths beside the multiples of 128 copies lengths from the host at each call.
constexpr size_t kLastThatCopiesLengths = 91500;

struct Graphs {
  cudnnHandle_t handle = nullptr;                             ///< null where cuDNN does not start
  std::map<Key, std::unique_ptr<fe::graph::Graph>> by_shape;  ///< null: llmz's own kernels take this shape
  Graphs() = default;
  ~Graphs() {
    by_shape.clear();
    if (handle != nullptr) cudnnDestroy(handle);
  }
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;
};

Graphs& graphs_of(Gpu& gpu) {
  if (gpu.attention_graphs() == nullptr) {
    auto graphs = std::make_shared<Graphs>();
    cudnnStatus_t status = cudnnCreate(&graphs->handle);
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnSetStream(graphs->handle, gpu.stream());
    if (status != CUDNN_STATUS_SUCCESS) {
      spdlog::warn("cuDNN does not start ({}); llmz's own kernels compute attention", cudnnGetErrorString(status));
      if (graphs->handle != nullptr) cudnnDestroy(graphs->handle);
      graphs->handle = nullptr;
    }
    gpu.attention_graphs() = std::move(graphs);
  }
  return *static_cast<Graphs*>(gpu.attention_graphs().get());
}

/// Elements between sequences, between heads and between positions. What a size of 1 makes meaningless is what it
/// would be without gaps, since cuDNN looks at it all the same.
std::array<int64_t, 3> strides(const Tensor& t) {
  const int64_t head = t.dim(2) == 1 ? t.dim(3) : t.stride(2);
  const int64_t token = t.dim(1) == 1 ? t.dim(2) * head : t.stride(1);
  return {t.dim(0) == 1 ? t.dim(1) * token : t.stride(0), head, token};
}

/// What cuDNN gets: the shapes of q and k but for the batch, of which a piece is taken at a time.
struct Call {
  const char* op;
  const Tensor &q, &k, &lse, &workspace;
  int64_t piece;
  std::vector<std::pair<Name, const Tensor*>> rows;  ///< all tensors [B,S,heads,D]

  Key key() const {
    Key key = {static_cast<int64_t>(rows.size()), piece, q.dim(1), k.dim(1), q.dim(2), k.dim(2), q.dim(3)};
    for (const auto& [name, t] : rows) {
      const auto s = strides(*t);
      key.insert(key.end(), s.begin(), s.end());
    }
    return key;
  }
  std::string describe() const { return fmt::format("q {}, k {}, {} at a time", q.shape.str(), k.shape.str(), piece); }
};

void set_rows(Attributes& to, const Call& call, Name name) {
  for (const auto& [other, t] : call.rows) {
    if (other != name) continue;
    const auto [batch, head, token] = strides(*t);
    to.set_uid(name).set_data_type(fe::DataType_t::BFLOAT16);
    to.set_dim({call.piece, t->dim(2), t->dim(1), t->dim(3)}).set_stride({batch, head, token, 1});
  }
}

void set_lse(Attributes& to, const Call& call) {
  const int64_t heads = call.q.dim(2), queries = call.q.dim(1);
  to.set_uid(kLse).set_data_type(fe::DataType_t::FLOAT);
  to.set_dim({call.piece, heads, queries, 1}).set_stride({heads * queries, queries, 1, 1});
}

Handle input(fe::graph::Graph& graph, const Call& call, Name name) {
  Attributes attributes;
  if (name == kLse) {
    set_lse(attributes, call);
  } else {
    set_rows(attributes, call, name);
  }
  return graph.tensor(attributes);
}

/// Scale 1/√D, and query i sees keys 0 … Skv − Sq + i.
template <class Options>
Options& set_attention(Options& options, const Call& call) {
  options.set_attn_scale(1.0f / std::sqrt(static_cast<float>(call.q.dim(3))));
  if (call.k.dim(1) == call.q.dim(1)) return options.set_causal_mask(true);
  return options.set_causal_mask_bottom_right(true);
}

void describe_forward(fe::graph::Graph& graph, const Call& call) {
  fe::graph::SDPA_attributes options;
  options.set_name("attention_forward").set_generate_stats(true);
  const auto [out, lse] =
      graph.sdpa(input(graph, call, kQ), input(graph, call, kK), input(graph, call, kV), set_attention(options, call));
  set_rows(out->set_output(true), call, kOut);
  set_lse(lse->set_output(true), call);
}

void describe_backward(fe::graph::Graph& graph, const Call& call) {
  fe::graph::SDPA_backward_attributes options;
  options.set_name("attention_backward").set_deterministic_algorithm(true);
  const auto [dq, dk, dv] = graph.sdpa_backward(input(graph, call, kQ), input(graph, call, kK), input(graph, call, kV),
                                                input(graph, call, kOut), input(graph, call, kDout),
                                                input(graph, call, kLse), set_attention(options, call));
  set_rows(dq->set_output(true), call, kDq);
  set_rows(dk->set_output(true), call, kDk);
  set_rows(dv->set_output(true), call, kDv);
}

/// An empty text, or why cuDNN does not take the call.
std::string build(fe::graph::Graph& graph, cudnnHandle_t handle, const Call& call, bool backward) {
  if (backward && call.k.dim(1) % 128 != 0 && cudnnGetVersion() <= kLastThatCopiesLengths) {
    return "its backward takes this length only with copies from the host, before version 9.15.1";
  }
  graph.set_io_data_type(fe::DataType_t::BFLOAT16);
  graph.set_intermediate_data_type(fe::DataType_t::FLOAT).set_compute_data_type(fe::DataType_t::FLOAT);
  if (backward) {
    describe_backward(graph, call);
  } else {
    describe_forward(graph, call);
  }
  fe::error_t error = graph.build(handle, {fe::HeurMode_t::A});
  return error.is_bad() ? "it says: " + error.get_message() : "";
}

/// The call's graph; null where llmz's own kernels are to run. Says why once a shape: aloud where cuDNN was asked for
/// by name, or where more workspace would help.
fe::graph::Graph* graph_of(Gpu& gpu, const Call& call, bool backward) {
  Graphs& graphs = graphs_of(gpu);
  if (graphs.handle == nullptr) return nullptr;
  const auto [at, is_new] = graphs.by_shape.try_emplace(call.key());
  if (!is_new) return at->second.get();
  auto graph = std::make_unique<fe::graph::Graph>();
  std::string refusal;
  try {
    refusal = build(*graph, graphs.handle, call, backward);
  } catch (const std::exception& e) {  // the frontend reports by values, but not all of what lies below it does
    refusal = fmt::format("it throws: {}", e.what());
  }
  const bool asked = gpu.attention() == Gpu::Attention::cudnn;
  if (!refusal.empty()) {
    spdlog::log(asked ? spdlog::level::warn : spdlog::level::debug,
                "{}: llmz's own kernels instead of cuDNN for {}: {}", call.op, call.describe(), refusal);
    return nullptr;
  }
  const int64_t wanted = graph->get_workspace_size(), planned = call.workspace.bytes();
  if (wanted > planned) {
    spdlog::log(asked ? spdlog::level::warn : spdlog::level::info,
                "{}: llmz's own kernels instead of cuDNN for {}: it wants {} bytes of workspace, {} are planned",
                call.op, call.describe(), wanted, planned);
    return nullptr;
  }
  at->second = std::move(graph);
  return at->second.get();
}

/// Whether cuDNN is wanted and could take the call: lse as it stores it, and more than one query. Text is generated by
/// one query at a time over ever more keys: a new shape each time, which costs more than its attention.
bool worth_asking(const Gpu& gpu, const Tensor& lse, const Tensor& q, const Tensor& workspace) {
  return gpu.attention() != Gpu::Attention::own && q.dim(0) > 0 && q.dim(1) > 1 && lse.contiguous() &&
         reinterpret_cast<uintptr_t>(lse.data) % 16 == 0 && workspace.present();
}

bool run(Gpu& gpu, const Call& call, bool backward) {
  const fe::graph::Graph* graph = graph_of(gpu, call, backward);
  if (graph == nullptr) return false;
  for (int64_t first = 0; first < call.q.dim(0); first += call.piece) {
    Addresses at = {{kLse, call.lse.as<float>() + first * call.lse.stride(0)}};
    for (const auto& [name, t] : call.rows) at[name] = static_cast<uint16_t*>(t->data) + first * t->stride(0);
    fe::error_t error = graph->execute(graphs_of(gpu).handle, at, call.workspace.data);
    if (error.is_bad()) fail("{}: cuDNN failed for {}: {}", call.op, call.describe(), error.get_message());
    gpu.check_launch(call.op);
  }
  return true;
}

}  // namespace

bool cudnn_attention_forward(Gpu& gpu, const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k,
                             const Tensor& v, const Tensor& workspace) {
  if (!worth_asking(gpu, lse, q, workspace)) return false;
  return run(gpu, {"attention_forward", q, k, lse, workspace, q.dim(0), {{kQ, &q}, {kK, &k}, {kV, &v}, {kOut, &out}}},
             false);
}

bool cudnn_attention_backward(Gpu& gpu, const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout,
                              const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                              const Tensor& workspace) {
  if (!worth_asking(gpu, lse, q, workspace)) return false;
  return run(gpu,
             {"attention_backward",
              q,
              k,
              lse,
              workspace,
              attention_backward_piece(q, k),
              {{kQ, &q}, {kK, &k}, {kV, &v}, {kOut, &out}, {kDout, &dout}, {kDq, &dq}, {kDk, &dk}, {kDv, &dv}}},
             true);
}

int cudnn_attention_shapes(Gpu& gpu) {
  if (gpu.attention_graphs() == nullptr) return 0;
  int taken = 0;
  for (const auto& [key, graph] : graphs_of(gpu).by_shape) taken += graph != nullptr;
  return taken;
}

}  // namespace llmz::cuda
