#include "llmz/codec/codec.h"
#include "llmz/ops/matmul.h"
#include "llmz/ops/projector.h"
#include "llmz/subspace/projector_source.h"

namespace llmz::codec {
namespace {

/// Stores x under another codec and sketches what that gives back, in backward: a low-rank gradient whatever is stored.
class Projected final : public Codec {
 public:
  Projected(const CodecOptions& o, const subspace::ProjectorConfig& projector, Memory& memory)
      : source_(projector, o.name, o.widths[0], o.dtype, o.stream, o.clock, memory),
        inner_(make_codec(inner_options(o), memory)),
        sketch_name_(o.name + ".sketch"),
        dtype_(o.dtype) {}

  CodecFacts facts() const override {
    CodecFacts facts = inner_->facts();
    facts.projector = &source_.projector();
    return facts;
  }
  void keep(Exec& exec, Buffer x, Rebuild rebuild) override { inner_->keep(exec, std::move(x), std::move(rebuild)); }
  Buffer decode(Exec& exec) override { return inner_->decode(exec); }
  void low_rank_grad(Exec& exec, Tensor factor, Tensor dy, Tensor x) override {
    Buffer decoded;
    if (!x.present()) decoded = inner_->decode(exec);
    const Tensor input = x.present() ? x : decoded.tensor();
    const Buffer z =
        exec.memory.take(sketch_name_, Category::activations, {input.dim(0), source_.projector().rank()}, dtype_);
    ops::project(exec, z.tensor(), input, source_.projector());
    ops::matmul(exec, {.c = factor, .a = dy, .b = z.tensor(), .transpose_a = true, .accumulate = true});
  }
  void drop() override { inner_->drop(); }
  subspace::Refresh* refresh() override { return &source_; }

 private:
  /// The wrapper probes, the inner codec need not.
  static CodecOptions inner_options(CodecOptions o) {
    o.probes = false;
    o.name += ".stored";
    return o;
  }

  subspace::ProjectorSource source_;
  std::unique_ptr<Codec> inner_;
  std::string sketch_name_;
  DType dtype_;
};

}  // namespace

std::unique_ptr<Codec> make_projected(const CodecOptions& options, const subspace::ProjectorConfig& projector,
                                      Memory& memory) {
  return probed(std::make_unique<Projected>(options, projector, memory), options, memory);
}

}  // namespace llmz::codec
