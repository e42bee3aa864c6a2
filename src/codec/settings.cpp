#include "llmz/codec/settings.h"

namespace llmz::codec {
namespace {

using config::between;

constexpr double kMaxWidth = 1 << 20;  // above what any machine trains

}  // namespace

config::Fields<QuantConfig> quant_fields() {
  using Q = QuantConfig;
  return config::Fields<Q>()
      .key("bits", &Q::bits,
           "4 or 8 bits a number, of `quant` or of a sketch's code; 0: 8 for `quant`, a sketch as it is", between(0, 8))
      .key("group", &Q::group, "numbers that share a scale; 0 = a row", between(0, kMaxWidth))
      .key("rotate", &Q::rotate, "block size of a random Hadamard rotation before rounding, a power of two; 0 = none",
           between(0, 1024))
      .key("rounding", &Q::rounding, "to the nearest level, or at random without bias", roundings());
}

config::Fields<GradientConfig> gradient_fields() {
  using G = GradientConfig;
  return config::Fields<G>()
      .key("form", &G::form,
           "`auto`: low-rank where the input is kept as a sketch, else dense; `low_rank`: there too, through the "
           "projector below of the input that backward has; `dense`: none may be low-rank",
           gradient_forms())
      .object("", &G::projector, subspace::projector_fields());
}

std::vector<std::string> codecs_for(const RoleFacts& role, const std::vector<CodecRow>& rows) {
  std::vector<std::string> names;
  for (const CodecRow& row : rows) {
    if (row.serves(role)) names.push_back(row.name);
  }
  return names;
}

config::Fields<CodecConfig> codec_fields(const std::vector<CodecRow>& rows) {
  config::Fields<CodecConfig> fields;
  for (const CodecRow& row : rows) fields.merge(row.fields);
  return fields;
}

}  // namespace llmz::codec
