#include "llmz/codec/config.h"

#include <algorithm>

#include "llmz/codec/codec.h"

namespace llmz::codec {
namespace {

void check_known(const std::string& value, const std::vector<std::string>& known, const std::string& key) {
  check(std::find(known.begin(), known.end(), value) != known.end(), "{} = \"{}\" is not known; allowed: {}", key,
        value, fmt::join(known, ", "));
}

}  // namespace

std::vector<std::string> roundings() { return {"nearest", "stochastic"}; }
std::vector<std::string> gradient_forms() { return {"auto", "dense", "low_rank"}; }

void validate(const QuantConfig& q, const std::string& where, bool needed) {
  const bool known = q.bits == 0 || q.bits == 4 || q.bits == 8;
  check(known, "{}.bits = {} is not known; allowed: 4, 8, or 0 ({})", where, q.bits,
        needed ? "which means 8" : "which leaves the sketch as it is");
  check(q.group >= 0 && (q.bits != 4 || q.group % 2 == 0),
        "{}.group = {} must be at least 0, and even with 4 bits: two numbers share a byte", where, q.group);
  const bool power_of_two = q.rotate == 0 || (q.rotate >= 2 && q.rotate <= 1024 && (q.rotate & (q.rotate - 1)) == 0);
  check(power_of_two, "{}.rotate = {} must be 0 or a power of two from 2 to 1024", where, q.rotate);
  check_known(q.rounding, roundings(), where + ".rounding");
}

}  // namespace llmz::codec
