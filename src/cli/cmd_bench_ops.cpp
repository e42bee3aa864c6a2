#include <nlohmann/json.hpp>

#include "llmz/ops/activation.h"
#include "llmz/ops/attention.h"
#include "llmz/ops/elementwise.h"
#include "llmz/ops/embedding.h"
#include "llmz/ops/loss.h"
#include "llmz/ops/matmul.h"
#include "llmz/ops/norm.h"
#include "llmz/ops/optimizer.h"
#include "llmz/ops/projector.h"
#include "llmz/ops/quant.h"
#include "llmz/ops/threads.h"
#include "llmz/report/bench.h"
#include "llmz/run/placement.h"
#include "src/cli/commands.h"

namespace llmz::cli {
namespace {

using namespace report;

struct BenchOpsOptions {
  int64_t batch = 8, sequence = 256, hidden = 512, heads = 8, intermediate = 1376, vocabulary = 32000, threads = 0;
  double seconds = 0.3;
  std::string only, device = "auto";
  std::optional<run::Compute> precision;
  bool json = false;

  int64_t tokens() const { return batch * sequence; }
};

using Run = std::function<void(Exec&)>;

/// Bytes of `passes` readings or writings of a rows×columns fp32 tensor.
double traffic(int passes, int64_t rows, int64_t columns) {
  return 4.0 * passes * static_cast<double>(rows) * static_cast<double>(columns);
}

void add_norms(std::vector<BenchCase>& cases, const BenchOpsOptions& o) {
  const int64_t t = o.tokens(), h = o.hidden;
  cases.push_back(
      {"rmsnorm_forward", traffic(3, t, h), [=](BenchExec& e) -> Run {
         const Tensor x = normal_tensor(e, {t, h}), gain = normal_tensor(e, {h});
         const Tensor out = zero_tensor(e, {t, h}), xhat = zero_tensor(e, {t, h}), rstd = f32_tensor(e, {t});
         return [=](Exec& exec) { ops::rmsnorm_forward(exec, out, xhat, rstd, x, gain, 1e-6f); };
       }});
  cases.push_back({"rmsnorm_backward", traffic(4, t, h), [=](BenchExec& e) -> Run {
                     const Tensor xhat = normal_tensor(e, {t, h}), dy = normal_tensor(e, {t, h});
                     const Tensor gain = normal_tensor(e, {h}), rstd = f32_tensor(e, {t});
                     const Tensor dx = zero_tensor(e, {t, h}), dgain = f32_tensor(e, {h});
                     return [=](Exec& exec) { ops::rmsnorm_backward(exec, dx, dgain, dy, xhat, rstd, gain); };
                   }});
  cases.push_back(
      {"layernorm_forward", traffic(3, t, h), [=](BenchExec& e) -> Run {
         const Tensor x = normal_tensor(e, {t, h}), gain = normal_tensor(e, {h}), bias = normal_tensor(e, {h});
         const Tensor out = zero_tensor(e, {t, h}), xhat = zero_tensor(e, {t, h}), rstd = f32_tensor(e, {t});
         return [=](Exec& exec) { ops::layernorm_forward(exec, out, xhat, rstd, x, gain, bias, 1e-5f); };
       }});
  cases.push_back({"layernorm_backward", traffic(4, t, h), [=](BenchExec& e) -> Run {
                     const Tensor xhat = normal_tensor(e, {t, h}), dy = normal_tensor(e, {t, h});
                     const Tensor gain = normal_tensor(e, {h}), rstd = f32_tensor(e, {t});
                     const Tensor dx = zero_tensor(e, {t, h}), dgain = f32_tensor(e, {h}), dbias = f32_tensor(e, {h});
                     return [=](Exec& exec) { ops::layernorm_backward(exec, dx, dgain, dbias, dy, xhat, rstd, gain); };
                   }});
  cases.push_back({"norm_apply_gain", traffic(2, t, h), [=](BenchExec& e) -> Run {
                     const Tensor xhat = normal_tensor(e, {t, h}), gain = normal_tensor(e, {h});
                     const Tensor out = zero_tensor(e, {t, h});
                     return [=](Exec& exec) { ops::norm_apply_gain(exec, out, xhat, gain, {}); };
                   }});
}

void add_attention(std::vector<BenchCase>& cases, const BenchOpsOptions& o, int64_t sequence) {
  const int64_t batch = std::max<int64_t>(1, o.tokens() / sequence), width = o.hidden / o.heads;
  const Shape shape = {batch, sequence, o.heads, width}, rows = {batch, o.heads, sequence};
  const double once = traffic(1, batch * sequence, o.hidden);
  const auto suffix = fmt::format(" {}x{}", batch, sequence);
  cases.push_back({"attention_forward" + suffix, 4 * once, [=](BenchExec& e) -> Run {
                     const Tensor q = normal_tensor(e, shape), k = normal_tensor(e, shape), v = normal_tensor(e, shape);
                     const Tensor out = zero_tensor(e, shape), lse = f32_tensor(e, rows);
                     return [=](Exec& exec) { ops::attention_forward(exec, out, lse, q, k, v); };
                   }});
  cases.push_back({"attention_backward" + suffix, 8 * once, [=](BenchExec& e) -> Run {
                     const Tensor q = normal_tensor(e, shape), k = normal_tensor(e, shape), v = normal_tensor(e, shape);
                     const Tensor out = normal_tensor(e, shape), dout = normal_tensor(e, shape),
                                  lse = f32_tensor(e, rows);
                     const Tensor dq = zero_tensor(e, shape), dk = zero_tensor(e, shape), dv = zero_tensor(e, shape);
                     return [=](Exec& exec) { ops::attention_backward(exec, dq, dk, dv, dout, out, lse, q, k, v); };
                   }});
}

void add_activations(std::vector<BenchCase>& cases, const BenchOpsOptions& o) {
  const int64_t t = o.tokens(), f = o.intermediate, wide = 4 * o.hidden;
  cases.push_back({"swiglu_forward", traffic(3, t, f), [=](BenchExec& e) -> Run {
                     const Tensor both = normal_tensor(e, {t, 2 * f}), out = zero_tensor(e, {t, f});
                     return
                         [=](Exec& exec) { ops::swiglu_forward(exec, out, both.slice(1, 0, f), both.slice(1, f, f)); };
                   }});
  cases.push_back({"swiglu_backward", traffic(5, t, f), [=](BenchExec& e) -> Run {
                     const Tensor both = normal_tensor(e, {t, 2 * f}), dboth = zero_tensor(e, {t, 2 * f});
                     const Tensor dout = normal_tensor(e, {t, f});
                     return [=](Exec& exec) {
                       ops::swiglu_backward(exec, dboth.slice(1, 0, f), dboth.slice(1, f, f), dout, both.slice(1, 0, f),
                                            both.slice(1, f, f));
                     };
                   }});
  cases.push_back({"gelu_forward", traffic(2, t, wide), [=](BenchExec& e) -> Run {
                     const Tensor x = normal_tensor(e, {t, wide}), out = zero_tensor(e, {t, wide});
                     return [=](Exec& exec) { ops::gelu_forward(exec, out, x); };
                   }});
  cases.push_back({"gelu_backward", traffic(3, t, wide), [=](BenchExec& e) -> Run {
                     const Tensor x = normal_tensor(e, {t, wide}), dout = normal_tensor(e, {t, wide});
                     const Tensor dx = zero_tensor(e, {t, wide});
                     return [=](Exec& exec) { ops::gelu_backward(exec, dx, dout, x); };
                   }});
  cases.push_back({"add_bias", traffic(2, t, wide), [=](BenchExec& e) -> Run {
                     const Tensor y = zero_tensor(e, {t, wide}), bias = normal_tensor(e, {wide});
                     return [=](Exec& exec) { ops::add_bias(exec, y, bias); };
                   }});
  cases.push_back({"bias_backward", traffic(1, t, wide), [=](BenchExec& e) -> Run {
                     const Tensor dy = normal_tensor(e, {t, wide}), dbias = f32_tensor(e, {wide});
                     return [=](Exec& exec) { ops::bias_backward(exec, dbias, dy); };
                   }});
}

void add_movement(std::vector<BenchCase>& cases, const BenchOpsOptions& o) {
  const int64_t t = o.tokens(), h = o.hidden, v = o.vocabulary, s = o.sequence;
  const Shape by_head = {o.batch, s, o.heads, h / o.heads};
  cases.push_back({"rotary", traffic(2, t, h), [=](BenchExec& e) -> Run {
                     const Tensor x = normal_tensor(e, by_head);
                     return [=](Exec& exec) { ops::rotary(exec, x, 0, 10000.0f, false); };
                   }});
  cases.push_back({"add", traffic(3, t, h), [=](BenchExec& e) -> Run {
                     const Tensor y = zero_tensor(e, {t, h}), x = normal_tensor(e, {t, h});
                     return [=](Exec& exec) { ops::add(exec, y, x); };
                   }});
  cases.push_back({"copy", traffic(2, t, h), [=](BenchExec& e) -> Run {
                     const Tensor out = zero_tensor(e, {t, h}), in = normal_tensor(e, {t, h});
                     return [=](Exec& exec) { ops::copy(exec, out, in); };
                   }});
  cases.push_back(
      {"embedding_forward", traffic(2, t, h), [=](BenchExec& e) -> Run {
         const Tensor table = normal_tensor(e, {v, h}), ids = id_tensor(e, t, v), out = zero_tensor(e, {t, h});
         return [=](Exec& exec) { ops::embedding_forward(exec, out, ids, table, {}, s, 0); };
       }});
  cases.push_back({"embedding_backward", traffic(3, t, h), [=](BenchExec& e) -> Run {
                     const Tensor dtable = f32_tensor(e, {v, h}), ids = id_tensor(e, t, v);
                     const Tensor dout = normal_tensor(e, {t, h});
                     return [=](Exec& exec) { ops::embedding_backward(exec, dtable, {}, dout, ids, s); };
                   }});
}

void add_loss(std::vector<BenchCase>& cases, const BenchOpsOptions& o) {
  const int64_t v = o.vocabulary, h = o.hidden, chunk = std::min<int64_t>(o.tokens(), 1024);
  cases.push_back(
      {fmt::format("softmax_cross_entropy {}x{}", chunk, v), traffic(2, chunk, v), [=](BenchExec& e) -> Run {
         const Tensor logits = normal_tensor(e, {chunk, v}), targets = id_tensor(e, chunk, v);
         const Tensor losses = f32_tensor(e, {chunk});
         return [=](Exec& exec) { ops::softmax_cross_entropy(exec, losses, logits, targets, true, 1.0f); };
       }});
  cases.push_back({fmt::format("fill {}x{}", v, h), traffic(1, v, h), [=](BenchExec& e) -> Run {
                     const Tensor x = zero_tensor(e, {v, h});
                     return [=](Exec& exec) { ops::fill(exec, x, 0.0f); };
                   }});
  cases.push_back({fmt::format("sum_of_squares {}x{}", v, h), traffic(1, v, h), [=](BenchExec& e) -> Run {
                     const Tensor x = f32_tensor(e, {v, h}), total = f32_tensor(e, {1});
                     return [=](Exec& exec) { ops::sum_of_squares(exec, total, x); };
                   }});
}

Tensor zero_f32(BenchExec& e, Shape shape) {
  const Tensor t = f32_tensor(e, shape);
  ops::fill(e, t, 0.0);
  return t;
}

/// The update of one weight [vocabulary, hidden] as each of precision.weights does it, whatever --precision is.
void add_updates(std::vector<BenchCase>& cases, const BenchOpsOptions& o) {
  struct Kind {
    const char* name;
    DType weight, moments, grad;
    bool shadow, stochastic;
  };
  constexpr DType f32 = DType::f32, bf16 = DType::bf16;
  const Shape shape = {o.vocabulary, o.hidden};
  for (const Kind k : {Kind{"f32", f32, f32, f32, false, false},
                       {"bf16 master", f32, f32, f32, true, false},
                       {"bf16 stochastic", bf16, f32, f32, false, true},
                       {"bf16 pure", bf16, bf16, bf16, false, true},
                       {"bf16 nearest", bf16, bf16, bf16, false, false}}) {
    const size_t bytes = 2 * (dtype_bytes(k.weight) + 2 * dtype_bytes(k.moments)) + dtype_bytes(k.grad) +
                         (k.shadow ? dtype_bytes(bf16) : 0);
    BenchCase adamw{fmt::format("adamw {}", k.name), static_cast<double>(bytes) * static_cast<double>(shape.numel()),
                    [=](BenchExec& e) -> Run {
                      const auto make = [&](DType dtype, double value) {
                        const Tensor t = e.memory.persistent("bench", Category::workspace, shape, dtype);
                        ops::fill(e, t, value);
                        return t;
                      };
                      ops::AdamWArgs args{{.weight = make(k.weight, 0.5), .grad = make(k.grad, 0.1), .lr = 1e-4f},
                                          {},
                                          make(k.moments, 0.1),
                                          make(k.moments, 0.01)};
                      if (k.shadow) args.rounding.shadow = make(bf16, 0.5);
                      if (k.stochastic) args.rounding.stochastic = RandomStream(1, Purpose::weight_rounding);
                      return [=](Exec& exec) { ops::adamw(exec, args); };
                    }};
    adamw.own_types = true;
    cases.push_back(std::move(adamw));
  }
}

void add_quant(std::vector<BenchCase>& cases, const BenchOpsOptions& o) {
  const int64_t t = o.tokens(), h = o.hidden;
  for (const int bits : {8, 4}) {
    const ops::QuantFormat format{.bits = bits, .group = bits == 4 ? 32 : 0};
    const auto make_codes = [=](BenchExec& e) {
      return std::pair{byte_tensor(e, {t, format.row_bytes(h)}),
                       e.memory.persistent("scales", Category::workspace, {t, format.groups(h)}, DType::bf16)};
    };
    const RandomStream random(1, Purpose::rounding);
    cases.push_back({fmt::format("quantize {} bits", bits), traffic(1, t, h), [=](BenchExec& e) -> Run {
                       const Tensor x = normal_tensor(e, {t, h});
                       const auto [codes, scales] = make_codes(e);
                       return [=, codes = codes, scales = scales](Exec& exec) {
                         ops::quantize(exec, codes, scales, x, format, random, random);
                       };
                     }});
    cases.push_back({fmt::format("dequantize {} bits", bits), traffic(1, t, h), [=](BenchExec& e) -> Run {
                       const Tensor x = zero_tensor(e, {t, h});
                       const auto [codes, scales] = make_codes(e);
                       return [=, codes = codes, scales = scales](Exec& exec) {
                         ops::dequantize(exec, x, codes, scales, format, random);
                       };
                     }});
  }
}

void add_sketches(std::vector<BenchCase>& cases, const BenchOpsOptions& o) {
  const int64_t t = o.tokens(), h = o.hidden, r = o.hidden / 4;
  struct Kind {
    const char* name;
    Projector::Random random;
  };
  for (const Kind kind : {Kind{"gaussian", Projector::Random::gaussian}, {"sign", Projector::Random::sign}}) {
    const Projector p{.width = h, .random_rank = r, .random = kind.random, .seed = 1};
    cases.push_back({fmt::format("project {} n/4", kind.name), traffic(1, t, h + r), [=](BenchExec& e) -> Run {
                       const Tensor x = normal_tensor(e, {t, h}), z = zero_tensor(e, {t, r});
                       return [=](Exec& exec) { ops::project(exec, z, x, p); };
                     }});
    cases.push_back(
        {fmt::format("projected_adam {} n/4", kind.name), traffic(2, h, h), [=](BenchExec& e) -> Run {
           const ops::ProjectedAdamArgs args{
               {.weight = normal_tensor(e, {h, h}), .lr = 1e-4f}, {}, f32_tensor(e, {h, r}), zero_f32(e, {h, r})};
           const Tensor factor = f32_tensor(e, {h, r});
           return [=](Exec& exec) {
             ops::ProjectedAdamArgs now = args;
             now.low = {.factor = factor, .projector = &p};
             ops::projected_adam(exec, now);
           };
         }});
  }
}

std::vector<BenchCase> all_cases(const BenchOpsOptions& o) {
  std::vector<BenchCase> cases;
  add_norms(cases, o);
  add_attention(cases, o, 256);
  add_attention(cases, o, 1024);
  add_activations(cases, o);
  add_movement(cases, o);
  add_loss(cases, o);
  add_updates(cases, o);
  add_quant(cases, o);
  add_sketches(cases, o);
  std::erase_if(cases, [&](const BenchCase& c) { return c.name.find(o.only) == std::string::npos; });
  check(!cases.empty(), "--only {}: no op has this in its name", o.only);
  return cases;
}

int bench_ops(const BenchOpsOptions& o) {
  check(o.hidden % o.heads == 0, "--hidden {} is no multiple of --heads {}", o.hidden, o.heads);
  const std::vector<BenchCase> cases = all_cases(o);
  run::use_threads(o.threads);
  const run::Placement placement = run::place(o.device, o.precision, {});
  const double peak = matmul_peak(placement);
  nlohmann::ordered_json json = {{"threads", ops::threads()},
                                 {"where", describe(placement)},
                                 {"peak_gflops", peak * 1e-9},
                                 {"ops", nlohmann::ordered_json::array()}};
  if (!o.json) {
    fmt::print("{} x {} tokens, {} wide, {}; {} product: {:.1f} GFLOP/s\n\n", o.batch, o.sequence, o.hidden,
               describe(placement), peak_name(placement), peak * 1e-9);
    fmt::print("{:<34}{:>11}{:>11}{:>9}{:>10}\n", "", "ms median", "ms best", "GB/s", "GFLOP/s");
  }
  for (const BenchCase& c : cases) {
    const BenchResult r = run_case(c, o.seconds, placement);
    const double bandwidth = r.bytes / r.timing.median * 1e-9, speed = r.flops / r.timing.median * 1e-9;
    if (o.json) {
      json["ops"].push_back({{"name", r.name},
                             {"seconds_median", r.timing.median},
                             {"seconds_best", r.timing.best},
                             {"gigabytes_per_second", bandwidth},
                             {"gflops", speed}});
      continue;
    }
    fmt::print("{:<34}{:>11.3f}{:>11.3f}{:>9.1f}{:>10}\n", r.name, r.timing.median * 1e3, r.timing.best * 1e3,
               bandwidth, speed > 0 ? fmt::format("{:.1f}", speed) : "");
    std::fflush(stdout);
  }
  if (o.json) fmt::print("{}\n", json.dump(2));
  return 0;
}

}  // namespace

Command add_bench_ops(CLI::App& bench) {
  auto options = std::make_shared<BenchOpsOptions>();
  CLI::App* parser = bench.add_subcommand("ops", "Every op but the matrix product, at the shapes of a model");
  const auto size = [&](const char* name, int64_t& value, const char* meaning) {
    parser->add_option(name, value, meaning)->check(at_least(1))->capture_default_str();
  };
  size("--batch", options->batch, "Windows in a micro-batch");
  size("--sequence", options->sequence, "Tokens in a window (attention is measured at 256 and 1024)");
  size("--hidden", options->hidden, "Width of the model; the default is LLaMA-60M");
  size("--heads", options->heads, "Attention heads");
  size("--intermediate", options->intermediate, "Width of the MLP");
  size("--vocabulary", options->vocabulary, "Rows of the embedding and of the head");
  parser->add_option("--only", options->only, "Only ops that have this in their name");
  parser->add_option("--seconds", options->seconds, "Time for each op")->check(at_least(0))->capture_default_str();
  add_placement(*parser, options->device, options->precision);
  parser->add_option("--threads", options->threads, "CPU threads; 0 = all")->check(at_least(0));
  parser->add_flag("--json", options->json, "Print JSON");
  set_example(*parser, "llmz bench ops --only attention --hidden 768 --heads 12");
  return {parser, [options] { return bench_ops(*options); }};
}

}  // namespace llmz::cli
