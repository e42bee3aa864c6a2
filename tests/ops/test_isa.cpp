#include "kernels/cpu/isa.h"

#include <cmath>
#include <functional>
#include <vector>

#include "errors.h"
#include "kernels/cpu/random_bits.h"
#include "llmz/core/random.h"
#include "llmz/ops/optimizer.h"
#include "llmz/ops/threads.h"
#include "tests/ops/checks.h"
#include "tests/ops/fixture.h"

namespace llmz::test {
namespace {

using cpu::Isa;

LLMZ_INLINE void fused_loop(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i] * x[i];
}

/// y += (s·x)², of fp64 numbers with fp32 factors, or the other way round.
template <class Y, class X>
LLMZ_INLINE void mixed_loop(Y* y, const X* x, const float* s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double product = static_cast<double>(s[i]) * static_cast<double>(x[i]);
    y[i] += static_cast<Y>(product * product);
  }
}

/// What `loop`, as a function of three arrays, makes of numbers between 0 and 1.
template <class Y, class X>
std::vector<Y> sums_of(const std::function<void(Y*, const X*, const float*, int64_t)>& loop) {
  constexpr int64_t kCount = 1031;
  std::vector<Y> y(kCount, Y(1) / 3);
  std::vector<X> x(kCount);
  std::vector<float> s(kCount);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<X>(std::sin(0.1 * static_cast<double>(i)));
    s[i] = std::cos(static_cast<float>(i));
  }
  loop(y.data(), x.data(), s.data(), kCount);
  return y;
}

/// Words `first` … of a stream, as kernels take them, against one at a time.
void check_words(const RandomStream& stream, uint64_t first, int64_t count) {
  uint32_t buffer[cpu::kRandomWords];
  const uint32_t* words = cpu::random_bits(buffer, stream, first, count);
  bool same = true;
  for (int64_t i = 0; i < count; ++i) same = same && words[i] == stream.bits(first + static_cast<uint64_t>(i));
  INFO("words " << first << " … of " << count);
  CHECK(same);
}

/// The definition in WeightRounding, a number at a time.
bf16 rounded_at_random(float x, uint32_t word) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7f800000u) == 0x7f800000u) return bf16(x);
  return bf16(std::bit_cast<float>((u + (word >> 16)) & 0xffff0000u));
}

}  // namespace

TEST_CASE("every instruction set that this processor has can be asked for, by name", "[isa]") {
  CHECK(cpu::choose_isa(nullptr) == cpu::widest_isa());
  for (const Isa set : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    const std::string name(cpu::isa_name(set));
    if (set <= cpu::widest_isa()) {
      CHECK(cpu::choose_isa(name.c_str()) == set);
    } else {
      CHECK_ERROR(cpu::choose_isa(name.c_str()), "LLMZ_CPU_ISA=" + name, "this processor has no more");
    }
  }
  CHECK_ERROR(cpu::choose_isa("sse9"), "LLMZ_CPU_ISA=sse9", "baseline, avx2 and avx512");
}

TEST_CASE("a loop gives the same for every instruction set, but for the rounding that a fused sum leaves out",
          "[isa]") {
  constexpr int64_t kCount = 1031;
  std::vector<float> x(kCount), sums(kCount, 1.0f);
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.001f * static_cast<float>(i);
  for (const Isa set : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (set > cpu::widest_isa()) continue;
    std::vector<float> y = sums;
    cpu::Simd<fused_loop>::at(set, y.data(), x.data(), kCount);
    bool close = true;
    for (size_t i = 0; i < y.size(); ++i) {
      const double want = 1.0 + static_cast<double>(x[i]) * static_cast<double>(x[i]);
      close = close && std::abs(static_cast<double>(y[i]) - want) <= 1.0 * rounding(DType::f32) * 2 * want;
    }
    INFO(cpu::isa_name(set));
    CHECK(close);
  }
}

TEST_CASE("a loop over fp64 is the baseline's whatever else it reads, and one over fp32 is not", "[isa]") {
  using Exact = cpu::Simd<mixed_loop<double, double>, double>;
  using Fast = cpu::Simd<mixed_loop<double, float>, float>;
  CHECK(sums_of<double, double>(cpu::simd<mixed_loop<double, double>, double>) ==
        sums_of<double, double>([](auto... a) { Exact::at(Isa::baseline, a...); }));
  CHECK(sums_of<double, float>(cpu::simd<mixed_loop<double, float>, float>) ==
        sums_of<double, float>([](auto... a) { Fast::at(cpu::isa(), a...); }));
#ifdef LLMZ_ISA_CLONES
  if (cpu::isa() == Isa::baseline) return;
  CHECK(sums_of<double, double>(cpu::simd<mixed_loop<double, double>, double>) !=
        sums_of<double, double>([](auto... a) { Exact::at(cpu::isa(), a...); }));
#endif
}

TEST_CASE("random words in vectors are the stream's own, from any element on", "[isa]") {
  const RandomStream stream(0x123456789abcdefULL, Purpose::test, 7);
  for (const uint64_t first : {uint64_t{0}, uint64_t{1}, uint64_t{6}, uint64_t{63}, uint64_t{1024}, uint64_t{4095}}) {
    for (const int64_t count : {1, 3, 64, 65, 1000, 1024}) check_words(stream, first, count);
  }
  check_words(stream, (uint64_t{1} << 34) - 70, 200);  // counters on both sides of 2^32
  check_words(stream, (uint64_t{3} << 40) + 5, 1024);  // where a step's rounding begins
}

TEST_CASE("weights rounded at random are those of the definition, for any number of threads", "[isa]") {
  const int threads_before = ops::threads();
  const RandomStream stream(11, Purpose::weight_rounding, 3);
  for (const int64_t count : {int64_t{1}, int64_t{37}, int64_t{1024}, int64_t{16 * 1024 + 5}}) {
    const Shape shape = {count};
    const HostTensor grad = HostTensor::random(DType::f32, shape, 1), start = HostTensor::random(DType::bf16, shape, 2);
    const auto update = [&](DType type, bool stochastic) {
      HostTensor weight(type, shape), m(DType::f32, shape), v(DType::f32, shape);
      weight.assign(start.values());
      HostTensor g = grad;
      ops::AdamWArgs args{{.weight = weight.tensor(), .grad = g.tensor(), .lr = 1e-3f}, {}, m.tensor(), v.tensor()};
      if (stochastic) args.rounding = {.stochastic = stream, .first = 9};
      run_op([&](Exec& e) { ops::adamw(e, args); });
      return weight.values();
    };
    const std::vector<double> exact = update(DType::f32, false);
    for (const int threads : {1, 2, 3}) {
      ops::set_threads(threads);
      const std::vector<double> got = update(DType::bf16, true);
      bool same = true;
      for (size_t i = 0; i < got.size(); ++i) {
        const bf16 want = rounded_at_random(static_cast<float>(exact[i]), stream.bits(9 + i));
        same = same && got[i] == static_cast<double>(static_cast<float>(want));
      }
      INFO(count << " weights, " << threads << " threads");
      CHECK(same);
    }
    ops::set_threads(threads_before);
  }
}

TEST_CASE("adamw leaves the master's rounding in its shadow", "[isa]") {
  for (const int64_t count : {int64_t{1}, int64_t{33}, int64_t{5 * 1024 + 17}}) {
    const Shape shape = {count};
    HostTensor weight = HostTensor::random(DType::f32, shape, 1), grad = HostTensor::random(DType::f32, shape, 2);
    HostTensor m(DType::f32, shape), v(DType::f32, shape), shadow(DType::bf16, shape);
    ops::AdamWArgs args{{.weight = weight.tensor(), .grad = grad.tensor(), .lr = 1e-3f}, {}, m.tensor(), v.tensor()};
    args.rounding.shadow = shadow.tensor();
    run_op([&](Exec& e) { ops::adamw(e, args); });
    const std::vector<double> master = weight.values(), copy = shadow.values();
    bool same = true;
    for (size_t i = 0; i < master.size(); ++i) {
      same = same && copy[i] == static_cast<double>(static_cast<float>(bf16(static_cast<float>(master[i]))));
    }
    CHECK(same);
  }
}

}  // namespace llmz::test
