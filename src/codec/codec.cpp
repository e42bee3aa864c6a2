#include "llmz/codec/codec.h"

#include "llmz/ops/elementwise.h"

namespace llmz::codec {
namespace {

struct Row {
  const char* name;
  std::unique_ptr<Codec> (*make)(const CodecOptions&, Memory&);
};

constexpr Row kRegistry[] = {
    {"store", make_store}, {"recompute", make_recompute}, {"sketch", make_sketch}, {"quant", make_quant}};

}  // namespace

void Codec::keep(Exec& exec, Buffer x, Rebuild rebuild) {
  const bool probing = clock_ != nullptr && clock_->probing && (!exact() || projector() != nullptr);
  if (!probing) return do_keep(exec, std::move(x), std::move(rebuild));
  const Tensor t = x.tensor();
  exact_input_ = exec.memory.take("probe.exact", Category::workspace, t.shape, t.dtype);
  ops::copy(exec, exact_input_.tensor(), t);
  do_keep(exec, std::move(x), std::move(rebuild));
  if (!probe_.norms.present()) return;
  const Buffer decoded = decode(exec);
  ops::difference_norms(exec, probe_.norms, decoded.tensor(), exact_input_.tensor());
}

void Codec::allow_probes(const CodecOptions& options, Memory& memory) {
  if (!options.probes) return;
  clock_ = options.clock;
  if (exact() || !decodes_in_forward()) return;
  probe_ = {options.name, "code", memory.persistent(options.name + ".probe", Category::workspace, {2}, DType::f64)};
}

void Codec::drop() {
  do_drop();
  exact_input_.reset();
}

void Codec::low_rank_grad(Exec&, Tensor, Tensor, Tensor) { fail("this codec makes no low-rank gradients"); }

std::unique_ptr<Codec> make_codec(const CodecOptions& options, Memory& memory) {
  for (const Row& row : kRegistry) {
    if (options.config.codec != row.name) continue;
    auto codec = row.make(options, memory);
    codec->allow_probes(options, memory);
    return codec;
  }
  fail("codec '{}' is unknown; known: {}", options.config.codec, fmt::join(codec_names(), ", "));
}

std::vector<std::string> codec_names() {
  std::vector<std::string> names;
  for (const Row& row : kRegistry) names.emplace_back(row.name);
  return names;
}

}  // namespace llmz::codec
