#include <fmt/format.h>

#include "cuda/twins.h"
#include "llmz/ops/quant.h"

// Codes, scales and decoded values are the CPU twin's bits, in every format: both do the same operations in the same
// order, the butterflies of the rotation and the one fused x·(1/s) + half included, and the draws of stochastic
// rounding are numbered by element. Only a CPU without fused multiplication rounds that once more; a code may then be
// the neighbour, where x/s lies within that rounding of a boundary: 2^-24·256 of a step on either side.

namespace llmz::test {
namespace {

const RandomStream kSigns(7, Purpose::projector, 3), kRounding(11, Purpose::rounding);

bool cpu_fuses() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  return __builtin_cpu_supports("fma") > 0;
#elif defined(__aarch64__)
  return true;
#else
  return false;
#endif
}

std::string name(const ops::QuantFormat& f, const HostTensor& x) {
  return fmt::format("{} {}, bits {} group {} rotate {} stochastic {}", dtype_name(x.dtype()), x.shape().str(), f.bits,
                     f.group, f.rotate, f.stochastic);
}

int64_t different(const HostTensor& a, const HostTensor& b) {
  int64_t count = 0;
  for (int64_t i = 0; i < a.size(); ++i) {
    const bool both_nan = std::isnan(a.get(i)) && std::isnan(b.get(i));
    count += !both_nan && a.get(i) != b.get(i);
  }
  return count;
}

void same_elements(const HostTensor& gpu, const HostTensor& cpu) {
  REQUIRE(gpu.gaps_intact());
  REQUIRE(different(gpu, cpu) == 0);
}

/// Both directions on both sides.
void check(HostTensor x, const ops::QuantFormat& f, int64_t gap) {
  INFO(name(f, x) << ", gap " << gap);
  const int64_t rows = x.shape()[0], width = x.shape()[1];
  HostTensor codes(DType::u8, {rows, f.row_bytes(width)}, gap), scales(DType::bf16, {rows, f.groups(width)}, gap);
  HostTensor cpu_codes = codes, cpu_scales = scales, again = codes, again_scales = scales, cpu_x = x;
  const OpBody encode = [&](Exec& e, const Tensors& t) { ops::quantize(e, t[0], t[1], t[2], f, kSigns, kRounding); };
  run_op([&](Exec& e) { encode(e, {cpu_codes.tensor(), cpu_scales.tensor(), cpu_x.tensor()}); });
  run_on_gpu({&codes, &scales, &x}, encode);
  run_on_gpu({&again, &again_scales, &x}, encode);
  REQUIRE(x.same_bits(cpu_x));
  REQUIRE(codes.same_bits(again));
  same_elements(scales, cpu_scales);
  if (cpu_fuses()) {
    same_elements(codes, cpu_codes);
  } else {
    REQUIRE(codes.gaps_intact());
    REQUIRE(different(codes, cpu_codes) <= 1 + codes.size() / 2000);
  }
  for (DType type : {DType::f32, DType::bf16}) {
    HostTensor decoded(type, {rows, width}, gap), cpu_decoded = decoded;
    const OpBody decode = [&](Exec& e, const Tensors& t) { ops::dequantize(e, t[0], t[1], t[2], f, kSigns); };
    run_op([&](Exec& e) { decode(e, {cpu_decoded.tensor(), codes.tensor(), scales.tensor()}); });
    run_on_gpu({&decoded, &codes, &scales}, decode);
    same_elements(decoded, cpu_decoded);
  }
}

void check_all(const Shape& shape, const std::vector<int64_t>& groups, const std::vector<int64_t>& rotations) {
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t gap : {0, 3, 8}) {
      const unsigned seed = fresh_seed();
      INFO("seed " << seed);
      const HostTensor x = HostTensor::random(type, shape, seed, 2.5, gap);
      for (int64_t group : groups) {
        for (int64_t rotate : rotations) {
          for (int bits : {8, 4}) {
            if (bits == 4 && group % 2 != 0) continue;
            for (bool stochastic : {false, true}) check(x, {bits, group, rotate, stochastic}, gap);
          }
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("quant: CUDA twins give the CPU's bits at all widths and groups") {
  for (const Shape& shape : {Shape{1, 1}, {3, 7}, {19, 64}, {9, 129}, {5, 1000}, {3, 2055}}) {
    check_all(shape, {0, 1, 2, 6, 32, 100, 128, 512, 3000}, {0});
  }
  check_all({2, 5461}, {0, 30, 32, 2048}, {0});
  check_all({2, 4096}, {0, 4, 256, 1024, 2048}, {0});
}

TEST_CASE("quant: CUDA twins give the CPU's bits with rotation") {
  for (const Shape& shape : {Shape{1, 1}, {3, 7}, {19, 64}, {9, 129}, {5, 1023}, {3, 2055}}) {
    check_all(shape, {0, 32, 50}, {2, 16, 256, 1024});
  }
  check_all({2, 1536}, {0, 64}, {8, 128, 512, 1024});
}

TEST_CASE("quant: CUDA twins take rows longer than a block's registers") {
  for (const ops::QuantFormat& f :
       {ops::QuantFormat{8, 0, 1024, true}, {4, 0, 0, false}, {4, 32, 1024, true}, {8, 5000, 256, false}}) {
    for (int64_t width : {16384, 40001}) check(HostTensor::random(DType::bf16, {2, width}, fresh_seed()), f, 0);
  }
}

TEST_CASE("quant: CUDA twins go over many rows") {
  for (const ops::QuantFormat& f : {ops::QuantFormat{8, 0, 64, true}, {4, 0, 32, false}, {4, 10, 64, true}}) {
    check(HostTensor::random(DType::bf16, {3001, 72}, fresh_seed()), f, 8);
    check(HostTensor::random(DType::f32, {401, 1056}, fresh_seed()), f, 0);
  }
}

TEST_CASE("quant: CUDA twins pass on zeros, tiny, huge and broken numbers as the CPU does") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (DType type : {DType::f32, DType::bf16}) {
    for (double odd : {0.0, 1e-45, 1e-39, 3e38, inf, nan}) {
      HostTensor x = HostTensor::random(type, {4, 1100}, fresh_seed());
      for (int64_t i = 0; i < 1100; ++i) x.set(i, i % 3 == 0 ? odd : 0.0);
      x.set(1100 + 700, -odd);
      for (int64_t group : {0, 32, 50}) {
        for (bool stochastic : {false, true}) {
          check(x, {8, group, 0, stochastic}, 0);
          check(x, {4, group, 128, stochastic}, 0);
        }
      }
    }
  }
}

}  // namespace llmz::test
