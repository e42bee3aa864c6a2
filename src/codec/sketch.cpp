#include "llmz/codec/settings.h"
#include "llmz/ops/matmul.h"
#include "llmz/ops/projector.h"
#include "llmz/subspace/projector_source.h"
#include "src/codec/packed.h"
#include "src/codec/parts.h"

namespace llmz::codec {
namespace {

/// Keeps z = x·P [T,r]. A weight gradient is dyᵀ·z: x·P·Pᵀ is formed only by `decode`, for what is not linear.
class Sketch final : public Part {
 public:
  Sketch(const CodecOptions& o, const std::string& name, int64_t width, subspace::StreamId stream, Memory& memory)
      : source_(o.config.projector, name, width, o.dtype, stream, o.clock, memory),
        z_(o, name, o.config.quant, stream.id) {}

  SketchEpilogue sketch_epilogue(Exec& exec, int64_t tokens) override {
    if (!source_.projector().only_signs()) return {};
    epilogue_z_ = z_.target(exec, tokens, source_.projector().rank());
    return {epilogue_z_.tensor(), &source_.projector()};
  }
  void encode(Exec& exec, Tensor x) override {
    Buffer z = std::move(epilogue_z_);
    if (!z) {
      z = z_.target(exec, x.dim(0), source_.projector().rank());
      ops::project(exec, z.tensor(), x, source_.projector());
    }
    z_.hold(exec, std::move(z));
  }
  void decode(Exec& exec, Tensor into) override {
    const Buffer z = z_.values(exec);
    ops::expand(exec, {.out = into, .z = z.tensor()}, source_.projector());
  }
  void drop() override {
    z_.drop();
    epilogue_z_.reset();
  }

  const Projector* projector() const override { return &source_.projector(); }
  void low_rank_grad(Exec& exec, Tensor factor, Tensor dy) override {
    const Buffer z = z_.values(exec);
    ops::matmul(exec, {.c = factor, .a = dy, .b = z.tensor(), .transpose_a = true, .accumulate = true});
  }
  bool draws_each_pass() const override { return z_.draws(); }
  subspace::Refresh* refresh() override { return &source_; }

 private:
  subspace::ProjectorSource source_;
  Packed z_;
  Buffer epilogue_z_;  ///< z of the x that is kept next, made along with it
};

std::unique_ptr<Part> make_part(const CodecOptions& options, const std::string& name, int64_t width,
                                subspace::StreamId stream, Memory& memory) {
  return std::make_unique<Sketch>(options, name, width, stream, memory);
}

std::unique_ptr<Codec> make_sketch(const CodecOptions& options, Memory& memory) {
  return std::make_unique<Parted>(options, memory, make_part);
}

void check_settings(const CodecConfig& config, const std::string& where, int64_t width) {
  validate(config.projector, where, width);
  validate(config.quant, where, /*needed=*/false);
}

}  // namespace

CodecRow sketch_row() {
  using config::Fields;
  const auto projector = Fields<CodecConfig>().object("", &CodecConfig::projector, subspace::projector_fields());
  const auto packing = Fields<CodecConfig>().object("", &CodecConfig::quant, quant_fields());
  return {.name = "sketch",
          .meaning = "its product with a projector",
          .fields = Fields<CodecConfig>(projector).merge(packing),
          .check = check_settings,
          .make = make_sketch,
          .is_sketch = true};
}

}  // namespace llmz::codec
