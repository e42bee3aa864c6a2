#pragma once

// Loops that are compiled once for each instruction set, of which the best is picked when the program runs:
//
//   template <class Real>
//   LLMZ_INLINE void add_loop(Real* y, const Real* x, int64_t n) { for (...) y[i] += x[i]; }
//
//   #pragma omp parallel for
//   for (int64_t t = 0; t < rows; ++t) simd<add_loop<Real>>(y + t * pitch, x + t * pitch, width);
//
// What goes in must be LLMZ_INLINE, and whatever it calls too: it is then compiled as part of a function that may use
// the set. Lambdas and OpenMP bodies do not inherit it. No object file is compiled for more than the baseline, so no
// inline function of the standard library can slip AVX-512 into a program that runs elsewhere.

#include <cstdint>
#include <string_view>
#include <type_traits>

#include "llmz/core/dtype.h"

#define LLMZ_INLINE inline __attribute__((always_inline))

// The iterations of the loop that follows do not depend on each other, although its pointers may be equal.
#if defined(__clang__)
#define LLMZ_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#else
#define LLMZ_IVDEP _Pragma("GCC ivdep")
#endif

#ifdef __x86_64__
#ifndef __AVX512F__
#define LLMZ_ISA_CLONES 1
#endif
#define LLMZ_TARGET_AVX2 __attribute__((target("avx2,fma,bmi,bmi2")))
#define LLMZ_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2")))
#define LLMZ_TARGET_AVX512_BF16 \
  __attribute__((target("avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2")))
#endif

namespace llmz::cpu {

/// Instruction sets that kernels are compiled for, each with all before it. Built for one processor (-march=native with
/// AVX-512) or for another architecture, loops are compiled once, for what the compiler was told.
enum class Isa : uint8_t { baseline, avx2, avx512 };

std::string_view isa_name(Isa isa);
/// The widest that this processor has.
Isa widest_isa();
/// What `wanted` names, or the widest if it is null; an Error if there is no such name or the processor lacks it.
Isa choose_isa(const char* wanted);

/// choose_isa of the environment's LLMZ_CPU_ISA, made when the program starts; the widest if that names none.
extern const Isa kProcessIsa;
/// What this process runs.
inline Isa isa() { return kProcessIsa; }
/// Throws what choose_isa throws at LLMZ_CPU_ISA.
void check_environment_isa();

template <auto kLoop, class Element = void>
struct Simd;

/// Calls kLoop, as compiled for the process's instruction set, or for one that is named. Loops over fp64, which is
/// there for checks, are the baseline's everywhere, so that what a check sees depends on no processor. What a loop
/// goes over is what its arguments point to; one that takes fp64 and other floating-point types is told its Element.
template <class Result, class... Args, Result (*kLoop)(Args...), class Element>
struct Simd<kLoop, Element> {
  template <class T>
  static constexpr bool kTakes = (std::is_same_v<std::remove_cv_t<std::remove_pointer_t<Args>>, T> || ...);
  static_assert(!std::is_void_v<Element> || !kTakes<double> || !(kTakes<float> || kTakes<bf16>),
                "this loop takes fp64 and other types: name its element, simd<loop<T>, T>");
  static constexpr bool kDouble = std::is_void_v<Element> ? kTakes<double> : std::is_same_v<Element, double>;

  Result operator()(Args... args) const { return at(kDouble ? Isa::baseline : isa(), args...); }

#ifdef LLMZ_ISA_CLONES
  static Result at(Isa set, Args... args) {
    switch (set) {
      case Isa::avx512: return avx512(args...);
      case Isa::avx2: return avx2(args...);
      case Isa::baseline: break;
    }
    return kLoop(args...);
  }

 private:
  LLMZ_TARGET_AVX512 static Result avx512(Args... args) { return kLoop(args...); }
  LLMZ_TARGET_AVX2 static Result avx2(Args... args) { return kLoop(args...); }
#else
  static Result at(Isa, Args... args) { return kLoop(args...); }
#endif
};

template <auto kLoop, class Element = void>
inline constexpr Simd<kLoop, Element> simd{};

}  // namespace llmz::cpu
