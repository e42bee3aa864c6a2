#include <bit>
#include <cmath>
#include <limits>

#include "catch.h"
#include "llmz/core/dtype.h"
#include "llmz/core/error.h"
#include "llmz/core/random.h"

using llmz::bf16;
using llmz::DType;

namespace {

float from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }
float bf16_value(uint32_t bits) { return static_cast<float>(std::bit_cast<bf16>(static_cast<uint16_t>(bits))); }

}  // namespace

TEST_CASE("dtype names go there and back", "[dtype]") {
  for (const DType t : {DType::f32, DType::bf16, DType::i32, DType::u8, DType::f64}) {
    CHECK(llmz::dtype_from_name(llmz::dtype_name(t)) == t);
  }
  CHECK(llmz::dtype_bytes(DType::f64) == sizeof(double));
  CHECK(llmz::dtype_bytes(DType::f32) == sizeof(float));
  CHECK(llmz::dtype_bytes(DType::bf16) == sizeof(bf16));
  CHECK(llmz::dtype_bytes(DType::i32) == sizeof(int32_t));
  CHECK(llmz::dtype_bytes(DType::u8) == 1);
  CHECK_THROWS_WITH(llmz::dtype_from_name("fp8"), contains("fp8") && contains("bf16"));
}

TEST_CASE("every bf16 value survives fp32 and back", "[dtype]") {
  int wrong = 0;
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const float x = bf16_value(bits);
    if (std::isnan(x)) {
      wrong += !std::isnan(static_cast<float>(bf16(x)));
    } else {
      wrong += bf16(x).bits != bits;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("bf16 rounds to the nearest value, ties to even", "[dtype]") {
  const llmz::RandomStream random(1, llmz::Purpose::test);
  int wrong = 0;
  for (uint64_t i = 0; i < 200000; ++i) {
    // Half of the draws are exact ties: the discarded half is 0x8000.
    const uint32_t u = i % 2 == 0 ? random.bits(i) : (random.bits(i) & 0xffff0000u) | 0x8000u;
    const float x = from_bits(u);
    if (!std::isfinite(x)) continue;
    const uint32_t below = u >> 16, above = below + 1;  // neighbours in magnitude
    if (!std::isfinite(bf16_value(above))) continue;    // overflow has its own test
    const double down = std::abs(double(x) - bf16_value(below)), up = std::abs(double(x) - bf16_value(above));
    const uint32_t expected = down < up || (down == up && below % 2 == 0) ? below : above;
    wrong += bf16(x).bits != expected;
  }
  CHECK(wrong == 0);
}

TEST_CASE("bf16 at the ends of the range", "[dtype]") {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(bf16(infinity).bits == 0x7f80);
  CHECK(bf16(-infinity).bits == 0xff80);
  CHECK(bf16(std::numeric_limits<float>::max()).bits == 0x7f80);  // nearer to 2^128 than to the largest bf16
  CHECK(bf16(from_bits(0x7f7f7fff)).bits == 0x7f7f);              // just below the tie
  CHECK(bf16(0.0f).bits == 0);
  CHECK(bf16(-0.0f).bits == 0x8000);
  CHECK(bf16(from_bits(1)).bits == 0);
  // A NaN whose payload sits in the lower half alone must not become an infinity.
  CHECK(std::isnan(static_cast<float>(bf16(from_bits(0x7f800001)))));
  CHECK(std::isnan(static_cast<float>(bf16(from_bits(0xffffffff)))));
}
