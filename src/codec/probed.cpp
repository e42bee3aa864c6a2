#include "llmz/codec/codec.h"
#include "llmz/ops/elementwise.h"

namespace llmz::codec {
namespace {

/// Another codec, and in a probing pass the exact x beside its code.
class Probed final : public Codec {
 public:
  Probed(std::unique_ptr<Codec> inner, const CodecOptions& o, Memory& memory)
      : inner_(std::move(inner)), clock_(o.clock) {
    const CodecFacts f = inner_->facts();
    if (f.exact || !f.decodes_in_forward) return;
    probing_.code = {o.name, "code", memory.persistent(o.name + ".probe", Category::workspace, {2}, DType::f64)};
  }

  CodecFacts facts() const override { return inner_->facts(); }
  SketchEpilogue sketch_epilogue(Exec& exec, int64_t tokens) override { return inner_->sketch_epilogue(exec, tokens); }
  void keep(Exec& exec, Buffer x, Rebuild rebuild) override {
    if (!clock_->probing) return inner_->keep(exec, std::move(x), std::move(rebuild));
    const Tensor t = x.tensor();
    probing_.exact = exec.memory.take("probe.exact", Category::workspace, t.shape, t.dtype);
    ops::copy(exec, probing_.exact.tensor(), t);
    inner_->keep(exec, std::move(x), std::move(rebuild));
    if (!probing_.code.norms.present()) return;
    const Buffer decoded = inner_->decode(exec);
    ops::difference_norms(exec, probing_.code.norms, decoded.tensor(), probing_.exact.tensor());
  }
  Buffer decode(Exec& exec) override { return inner_->decode(exec); }
  void low_rank_grad(Exec& exec, Tensor factor, Tensor dy, Tensor x) override {
    inner_->low_rank_grad(exec, factor, dy, x);
  }
  void drop() override {
    inner_->drop();
    probing_.exact.reset();
  }
  subspace::Refresh* refresh() override { return inner_->refresh(); }
  const Probing* probing() const override { return &probing_; }

 private:
  std::unique_ptr<Codec> inner_;
  const subspace::Clock* clock_;
  Probing probing_;
};

}  // namespace

std::unique_ptr<Codec> probed(std::unique_ptr<Codec> inner, const CodecOptions& options, Memory& memory) {
  const CodecFacts f = inner->facts();
  const bool measures = options.probes && (!f.exact || f.projector != nullptr);
  if (!measures) return inner;
  return std::make_unique<Probed>(std::move(inner), options, memory);
}

}  // namespace llmz::codec
