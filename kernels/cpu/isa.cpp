#include "kernels/cpu/isa.h"

#include <string>

#include "llmz/core/error.h"
#include "llmz/core/system.h"

namespace llmz::cpu {
namespace {

constexpr const char* kVariable = "LLMZ_CPU_ISA";
constexpr Isa kSets[] = {Isa::baseline, Isa::avx2, Isa::avx512};

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    case Isa::baseline: break;
  }
  return "baseline";
}

Isa widest_isa() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi") ||
      !__builtin_cpu_supports("bmi2")) {
    return Isa::baseline;
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return Isa::avx512;
  }
  return Isa::avx2;
#else
  return Isa::baseline;
#endif
}

Isa choose_isa(const char* wanted) {
  const Isa widest = widest_isa();
  if (wanted == nullptr) return widest;
  for (const Isa set : kSets) {
    if (isa_name(set) != wanted) continue;
    check(set <= widest, "LLMZ_CPU_ISA={}: this processor has no more than {}; unset it, or name that", wanted,
          isa_name(widest));
    return set;
  }
  fail("LLMZ_CPU_ISA={}: instruction sets are baseline, avx2 and avx512; unset it to have the widest ({})", wanted,
       isa_name(widest));
}

void check_environment_isa() {
  static const Isa chosen = choose_isa(environment(kVariable));  // once it did not throw it never will
  static_cast<void>(chosen);
}

const Isa kProcessIsa = [] {
  try {
    return choose_isa(environment(kVariable));
  } catch (const Error&) {  // before main nobody could print it; the first op does
    return widest_isa();
  }
}();

}  // namespace llmz::cpu
