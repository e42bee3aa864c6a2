#include "llmz/ops/quant.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cpu/hadamard.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/random_bits.h"
#include "ops/checks.h"
#include "ops/fixture.h"
#include "ops/reference.h"

namespace llmz::test {
namespace {

const RandomStream kSigns(7, Purpose::projector, 3);
const DType kTypes[] = {DType::f32, DType::bf16, DType::f64};

/// Steps by which fp32 arithmetic may miss: x/s + half is at most 256, rounded twice to 2^-24 of it.
constexpr double kArithmetic = 256 * 2 * 0x1p-24;

std::string name(const ops::QuantFormat& f, int64_t width) {
  return fmt::format("bits {} group {} rotate {} stochastic {} width {}", f.bits, f.group, f.rotate, f.stochastic,
                     width);
}

/// The op's output beside the format written out naively.
struct Coded {
  ops::QuantFormat format;
  int64_t rows, width;
  HostTensor codes, scales;

  Coded(HostTensor& x, const ops::QuantFormat& f, const RandomStream& rounding = RandomStream(11, Purpose::rounding))
      : format(f),
        rows(x.shape()[0]),
        width(x.shape()[1]),
        codes(DType::u8, {rows, f.row_bytes(width)}, 3),
        scales(DType::bf16, {rows, f.groups(width)}, 1) {
    run_op([&](Exec& e) { ops::quantize(e, codes.tensor(), scales.tensor(), x.tensor(), f, kSigns, rounding); });
    REQUIRE(codes.gaps_intact());
    REQUIRE(scales.gaps_intact());
  }

  HostTensor decode(DType type, int64_t gap = 0) {
    HostTensor x(type, {rows, width}, gap);
    run_op([&](Exec& e) { ops::dequantize(e, x.tensor(), codes.tensor(), scales.tensor(), format, kSigns); });
    REQUIRE(x.gaps_intact());
    return x;
  }

  double scale(int64_t t, int64_t i) const {
    return scales.get(t * format.groups(width) + (format.group == 0 ? 0 : i / format.group));
  }
  int number(int64_t t, int64_t i) const {
    if (format.bits == 8) return static_cast<int>(codes.get(t * width + i));
    const int byte = static_cast<int>(codes.get(t * format.row_bytes(width) + i / 2));
    return i % 2 == 0 ? byte & 15 : byte >> 4;
  }
  double centre() const { return std::ldexp(1.0, format.bits - 1) - 0.5; }
  double level(int64_t t, int64_t i) const { return scale(t, i) * (number(t, i) - centre()); }
};

/// The rotation by its definition, y = H·(signs∘x)/√B, H_ij = (−1)^(bits that i and j share), or its inverse.
std::vector<double> rotate(const std::vector<double>& x, int64_t rows, int64_t width, int64_t block, bool inverse) {
  if (block == 0) return x;
  std::vector<double> y(x.size());
  const auto sign = [](int64_t i) { return static_cast<double>(kSigns.sign(static_cast<uint64_t>(i))); };
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t begin = 0, size = block; begin < width; begin += size) {
      while (size > width - begin) size /= 2;
      for (int64_t i = 0; i < size; ++i) {
        double sum = 0;
        for (int64_t j = 0; j < size; ++j) {
          const double h = std::popcount(static_cast<uint64_t>(i & j)) % 2 == 0 ? 1.0 : -1.0;
          sum += h * x[static_cast<size_t>(t * width + begin + j)] * (inverse ? 1.0 : sign(begin + j));
        }
        y[static_cast<size_t>(t * width + begin + i)] =
            sum / std::sqrt(static_cast<double>(size)) * (inverse ? sign(begin + i) : 1.0);
      }
    }
  }
  return y;
}

std::vector<ops::QuantFormat> formats(int64_t rotate, bool stochastic) {
  std::vector<ops::QuantFormat> list;
  for (int bits : {8, 4}) {
    for (int64_t group : {0, 32, 48, 1500}) list.push_back({bits, group, rotate, stochastic});
  }
  list.push_back({8, 7, rotate, stochastic});
  return list;
}

/// Scales are the groups' largest magnitudes over the top level, rounded up to bf16 and no further.
bool scales_are_right(const Coded& coded, const std::vector<double>& y) {
  const int64_t group = coded.format.group == 0 ? coded.width : coded.format.group;
  bool right = true;
  for (int64_t t = 0; t < coded.rows; ++t) {
    for (int64_t begin = 0; begin < coded.width; begin += group) {
      double largest = 0;
      for (int64_t i = begin; i < std::min(begin + group, coded.width); ++i) {
        largest = std::max(largest, std::fabs(y[static_cast<size_t>(t * coded.width + i)]));
      }
      const double s = coded.scale(t, begin), exact = largest / coded.centre();
      // The largest is known to ten butterflies of fp32; bf16 numbers lie at most 2^-7 apart.
      right = right && s >= exact * (1 - 1e-5) && s <= exact * (1 + 0x1p-7 + 1e-5);
    }
  }
  return right;
}

/// The largest distance between values and levels, in steps of the group.
double worst_error(const Coded& coded, const std::vector<double>& y) {
  double worst = 0;
  for (int64_t t = 0; t < coded.rows; ++t) {
    for (int64_t i = 0; i < coded.width; ++i) {
      const double error = std::fabs(coded.level(t, i) - y[static_cast<size_t>(t * coded.width + i)]);
      worst = std::max(worst, error / coded.scale(t, i));
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("quantize rounds to the nearest level, or stochastically to a neighbour", "[quant]") {
  for (int64_t width : {1, 5, 33, 1376, 2501}) {
    for (int64_t block : {0, 2, 64, 1024}) {
      for (DType type : kTypes) {
        HostTensor x = HostTensor::random(type, {3, width}, 1, 3.0, 2);
        const std::vector<double> y = rotate(x.values(), 3, width, block, false);
        for (bool stochastic : {false, true}) {
          for (const ops::QuantFormat& f : formats(block, stochastic)) {
            INFO(dtype_name(type) << " " << name(f, width));
            const Coded coded(x, f);
            CHECK(scales_are_right(coded, y));
            // A rotated element's error is up to 10 roundings of numbers that reach 256 steps or, inside, twice that.
            CHECK(worst_error(coded, y) <= (stochastic ? 1.0 : 0.5) + kArithmetic * (block == 0 ? 1 : 20));
          }
        }
      }
    }
  }
}

TEST_CASE("dequantize gives the levels, with the rotation undone", "[quant]") {
  for (int64_t width : {1, 5, 33, 1376, 2501}) {
    for (int64_t block : {0, 2, 64, 1024}) {
      for (DType type : kTypes) {
        HostTensor x = HostTensor::random(type, {1, width}, 1, 3.0);
        for (const ops::QuantFormat& f : formats(block, false)) {
          INFO(dtype_name(type) << " " << name(f, width));
          Coded coded(x, f);
          std::vector<double> levels;
          for (int64_t i = 0; i < width; ++i) levels.push_back(coded.level(0, i));
          // Levels are at most 15; fp32 rounds them once and each of 10 butterflies, the store rounds once more.
          const double arithmetic = 15 * 11 * rounding(type == DType::f64 ? DType::f64 : DType::f32);
          require_close(coded.decode(type, 3), rotate(levels, 1, width, block, true), arithmetic,
                        1.01 * rounding(type));
        }
      }
    }
  }
}

TEST_CASE("random_bits are the stream's bits", "[quant]") {
  const RandomStream stream(0x123456789abcdefull, Purpose::rounding, 5);
  std::vector<uint32_t> buffer(cpu::kRandomWords);
  const uint64_t carry = uint64_t{4} << 32;  // where the counter's low word overflows
  for (uint64_t first : {uint64_t{0}, uint64_t{3}, uint64_t{1001}, carry - 37, carry + 6}) {
    for (int64_t count : {int64_t{1}, int64_t{63}, int64_t{66}, cpu::kChunk}) {
      const uint32_t* bits = cpu::random_bits(buffer.data(), stream, first, count);
      int64_t wrong = 0;
      for (int64_t i = 0; i < count; ++i) wrong += bits[i] != stream.bits(first + static_cast<uint64_t>(i));
      INFO("from " << first << ", " << count);
      CHECK(wrong == 0);
      CHECK(bits + count <= buffer.data() + buffer.size());
    }
  }
}

TEST_CASE("stochastic rounding of element (t, i) uses number t·n + i", "[quant]") {
  const RandomStream rounding(5, Purpose::rounding, 2);
  for (int bits : {8, 4}) {
    const int64_t rows = 5, width = 1101;
    HostTensor x = HostTensor::random(DType::f32, {rows, width}, 1);
    const Coded coded(x, {bits, 32, 0, true}, rounding);
    int64_t wrong = 0;
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t i = 0; i < width; ++i) {
        const double u = x.get(t * width + i) / coded.scale(t, i) + coded.centre();
        const double sum = u + std::ldexp(rounding.bits(static_cast<uint64_t>(t * width + i)), -32);
        if (std::fabs(sum - std::round(sum)) < kArithmetic) continue;  // fp32 may fall on the other side
        wrong += coded.number(t, i) != static_cast<int>(std::floor(sum));
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("stochastic rounding is unbiased", "[quant]") {
  constexpr int kDraws = 2000;
  for (const ops::QuantFormat& f : {ops::QuantFormat{4, 32, 0, true}, {8, 0, 0, true}, {4, 0, 8, true}}) {
    INFO(name(f, 37));
    HostTensor x = HostTensor::random(DType::f32, {2, 37}, 1);
    const std::vector<double> y = rotate(x.values(), 2, 37, f.rotate, false);
    std::vector<double> sum(y.size(), 0.0);
    double squares = 0, expected_squares = 0;
    for (int draw = 0; draw < kDraws; ++draw) {
      const Coded coded(x, f, RandomStream(1, Purpose::rounding, static_cast<uint32_t>(draw)));
      for (size_t k = 0; k < y.size(); ++k) {
        const auto t = static_cast<int64_t>(k) / 37, i = static_cast<int64_t>(k) % 37;
        const double error = (coded.level(t, i) - y[k]) / coded.scale(t, i);
        const double below = y[k] / coded.scale(t, i) + coded.centre();
        const double fraction = below - std::floor(below);
        sum[k] += error;
        squares += error * error;
        expected_squares += fraction * (1 - fraction);
        if (draw < kDraws - 1) continue;
        // 4.5 standard deviations of the mean of a two-valued variable (one of these 222 means passes them once in a
        // thousand runs), and what fp32 shifts x/s by.
        CHECK(std::fabs(sum[k] / kDraws) <= 4.5 * std::sqrt(fraction * (1 - fraction) / kDraws) + kArithmetic * 20);
      }
    }
    // The variance of 74·2000 draws is known to well under a percent.
    CHECK(squares == Approx(expected_squares).epsilon(0.02));
  }
}

TEST_CASE("the Hadamard rotation keeps norms and its inverse gives x back", "[quant]") {
  for (int64_t count : {1, 7, 96, 1000, 1024}) {
    for (int64_t block : {2, 64, 1024}) {
      INFO("count " << count << " block " << block);
      const std::vector<double> x = HostTensor::random(DType::f64, {count}, 1).values();
      std::vector<double> y = x, scratch(x.size());
      std::vector<float> signs;
      for (int64_t i = 0; i < count; ++i) signs.push_back(kSigns.sign(static_cast<uint64_t>(i)));
      cpu::hadamard_rotate(y.data(), scratch.data(), signs.data(), count, block);
      double before = 0, after = 0, moved = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        before += x[i] * x[i];
        after += y[i] * y[i];
        moved += (x[i] - y[i]) * (x[i] - y[i]);
      }
      CHECK(after == Approx(before).epsilon(1e-13));  // ten butterflies, each rounded to 2^-53
      if (count > 1) CHECK(moved > 0.1 * before);
      cpu::hadamard_unrotate(y.data(), scratch.data(), signs.data(), count, block);
      for (size_t i = 0; i < x.size(); ++i) CHECK(std::fabs(x[i] - y[i]) <= 1e-13 * std::sqrt(before));
    }
  }
}

TEST_CASE("quantize and dequantize have the same bits for any number of threads", "[quant]") {
  for (const ops::QuantFormat& f : {ops::QuantFormat{4, 32, 64, true}, {8, 0, 0, true}, {4, 1500, 512, false}}) {
    for (int what = 0; what < 3; ++what) {
      require_same_for_any_threads([&] {
        HostTensor x = HostTensor::random(DType::f32, {37, 1376}, 1);
        Coded coded(x, f);
        return what == 0 ? coded.codes : what == 1 ? coded.scales : coded.decode(DType::f32);
      });
    }
  }
}

TEST_CASE("zeros and the smallest numbers pass through quantize", "[quant]") {
  for (int bits : {8, 4}) {
    for (bool stochastic : {false, true}) {
      for (DType type : kTypes) {
        HostTensor x(type, {2, 101});
        x.set(150, 1.0);   // in row 1, group 1
        x.set(90, 1e-39);  // a subnormal's reciprocal would be infinite
        Coded coded(x, {bits, 32, 0, stochastic});
        INFO(dtype_name(type) << " " << name(coded.format, 101));
        const HostTensor back = coded.decode(type);
        for (int64_t i = 0; i < 202; ++i) {
          const double step = coded.scale(i / 101, i % 101), allowed = (stochastic ? 1.0 : 0.5) + kArithmetic;
          if (i < 64 || (i > 96 && i < 133) || i >= 165) CHECK(back.get(i) == 0.0);
          CHECK(std::fabs(back.get(i) - x.get(i)) <= allowed * step + std::fabs(back.get(i)) * rounding(type));
        }
      }
    }
  }
}

TEST_CASE("NaN and infinity make their whole group so, and no other", "[quant]") {
  const double infinity = std::numeric_limits<double>::infinity();
  for (int bits : {8, 4}) {
    for (bool stochastic : {false, true}) {
      for (int64_t block : {0, 32}) {
        for (DType type : kTypes) {
          for (double bad : {std::nan(""), infinity, -infinity}) {
            HostTensor x = HostTensor::random(type, {1, 100}, 1);
            x.set(40, bad);
            Coded coded(x, {bits, 32, block, stochastic});
            INFO(dtype_name(type) << " " << name(coded.format, 100) << " " << bad);
            const HostTensor back = coded.decode(type);
            for (int64_t i = 0; i < 100; ++i) CHECK(std::isfinite(back.get(i)) == (i / 32 != 1));
          }
        }
      }
    }
  }
}

TEST_CASE("quantize and dequantize name the argument that is wrong", "[quant]") {
  const auto both = [](const ops::QuantFormat& f, std::initializer_list<std::string_view> words, int64_t code_bytes) {
    HostTensor x(DType::f32, {3, 8}), codes(DType::u8, {3, code_bytes}), scales(DType::bf16, {3, 1});
    const RandomStream s(1, Purpose::test);
    require_error([&](Exec& e) { ops::quantize(e, codes.tensor(), scales.tensor(), x.tensor(), f, s, s); }, words);
    require_error([&](Exec& e) { ops::dequantize(e, x.tensor(), codes.tensor(), scales.tensor(), f, s); }, words);
  };
  both({5, 0, 0, false}, {"quantize", "bits is 5", "4 and 8"}, 8);
  both({4, 7, 0, false}, {"quantize", "group is 7", "even"}, 4);
  both({8, -1, 0, false}, {"quantize", "group is -1"}, 8);
  both({8, 0, 48, false}, {"quantize", "rotate is 48", "power of two"}, 8);
  both({8, 0, 1, false}, {"quantize", "rotate is 1;", "from 2 to 1024"}, 8);
  both({8, 0, 2048, false}, {"quantize", "rotate is 2048"}, 8);
  both({4, 0, 0, false}, {"quantize", "codes", "[3, 8]", "[3, 4]"}, 8);
  both({8, 4, 0, false}, {"quantize", "scales", "[3, 1]", "[3, 2]"}, 8);
}

#ifdef LLMZ_ISA_CLONES
TEST_CASE("codes of fp64 numbers are those of rounded products, on processors with fused ones too", "[quant]") {
  // Numbers around the borders between levels, of which a fused product falls on the other side.
  const ops::QuantFormat format{.bits = 8};
  constexpr int64_t kNear = 9;
  const int64_t width = 1 + 255 * kNear;
  HostTensor x(DType::f64, {1, width});
  x.set(0, 3.0);
  const double s = Coded(x, format).scale(0, 0), inverse = 1.0 / s;
  for (int64_t i = 1; i < width; ++i) {
    const double border = s * static_cast<double>((i - 1) / kNear - 127);
    const auto steps = static_cast<double>((i - 1) % kNear - kNear / 2);
    x.set(i, border * (1 + steps * 0x1p-52));
  }
  const Coded coded(x, format);
  REQUIRE(coded.scale(0, 0) == s);
  bool same = true;
  for (int64_t i = 1; i < width; ++i) {
    const volatile double product = x.get(i) * inverse;
    same = same && coded.number(0, i) == static_cast<int>(std::clamp(product + 128.0, 0.0, 255.5));
  }
  CHECK(same);
}
#endif

}  // namespace llmz::test
