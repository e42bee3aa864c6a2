#include "llmz/codec/config.h"

#include "llmz/codec/codec.h"

namespace llmz::codec {

const config::Names<Rounding>& roundings() {
  static const config::Names<Rounding> names = {{"nearest", Rounding::nearest}, {"stochastic", Rounding::stochastic}};
  return names;
}

const config::Names<GradientForm>& gradient_forms() {
  static const config::Names<GradientForm> names = {
      {"auto", GradientForm::automatic}, {"dense", GradientForm::dense}, {"low_rank", GradientForm::low_rank}};
  return names;
}

void validate(const QuantConfig& q, const std::string& where, bool needed) {
  const bool known = q.bits == 0 || q.bits == 4 || q.bits == 8;
  check(known, "{}.bits = {} is not known; allowed: 4, 8, or 0 ({})", where, q.bits,
        needed ? "which means 8" : "which leaves the sketch as it is");
  check(q.group >= 0 && (q.bits != 4 || q.group % 2 == 0),
        "{}.group = {} must be at least 0, and even with 4 bits: two numbers share a byte", where, q.group);
  const bool power_of_two = q.rotate == 0 || (q.rotate >= 2 && q.rotate <= 1024 && (q.rotate & (q.rotate - 1)) == 0);
  check(power_of_two, "{}.rotate = {} must be 0 or a power of two from 2 to 1024", where, q.rotate);
}

}  // namespace llmz::codec
