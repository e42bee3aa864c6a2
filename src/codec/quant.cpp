#include "llmz/codec/settings.h"
#include "src/codec/packed.h"
#include "src/codec/parts.h"

namespace llmz::codec {
namespace {

QuantConfig with_default_bits(QuantConfig config) {
  if (config.bits == 0) config.bits = 8;
  return config;
}

/// Keeps x in few bits.
class Quant final : public Part {
 public:
  Quant(const CodecOptions& o, const std::string& name, subspace::StreamId stream)
      : x_(o, name, with_default_bits(o.config.quant), stream.id) {}

  void encode(Exec& exec, Tensor x) override { x_.pack(exec, x); }
  void decode(Exec& exec, Tensor into) override { x_.unpack(exec, into); }
  void drop() override { x_.drop(); }
  bool draws_each_pass() const override { return x_.draws(); }

 private:
  Packed x_;
};

std::unique_ptr<Part> make_part(const CodecOptions& options, const std::string& name, int64_t,
                                subspace::StreamId stream, Memory&) {
  return std::make_unique<Quant>(options, name, stream);
}

std::unique_ptr<Codec> make_quant(const CodecOptions& options, Memory& memory) {
  return std::make_unique<Parted>(options, memory, make_part);
}

void check_settings(const CodecConfig& config, const std::string& where, int64_t) {
  validate(config.quant, where, /*needed=*/true);
}

}  // namespace

CodecRow quant_row() {
  return {.name = "quant",
          .meaning = "in 8 or 4 bits",
          .fields = config::Fields<CodecConfig>().object("", &CodecConfig::quant, quant_fields()),
          .check = check_settings,
          .make = make_quant};
}

}  // namespace llmz::codec
