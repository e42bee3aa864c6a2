#pragma once

#include <functional>
#include <vector>

#include "llmz/core/transfer.h"
#include "ops/fixture.h"
#include "ops/reference.h"

namespace llmz::test {

// What the issue of numbers allows between a CPU twin and a CUDA twin, relative to the size of the output's elements.
// f32: both compute in f32, in another order and with other polynomials for exp, sin and log: some 2^-24 each.
constexpr double kF32 = 1e-5;
// tf32 keeps 10 bits of a factor: 2^-11 each, averaging out over a sum.
constexpr double kTf32 = 1e-3;
// bf16 keeps 8 bits: 2^-9 of rounding in each output, and a factor of two where an intermediate is rounded too.
constexpr double kBf16 = 1e-2;
inline double tolerance(DType t) { return t == DType::bf16 ? kBf16 : kF32; }

using Tensors = std::vector<Tensor>;
using OpBody = std::function<void(Exec&, const Tensors&)>;

/// Runs an op on the GPU as a training run does: recorded once, then live in an arena of the planned size, workspace
/// filled with NaN bits. `tensors` go there and back, gaps included. Returns the arithmetic that was counted.
inline double run_on_gpu(const std::vector<HostTensor*>& tensors, const OpBody& body) {
  Memory recorder(DeviceType::cuda);
  const auto build = [&](Memory& memory) {
    Tensors views;
    for (HostTensor* t : tensors) {
      const Tensor bytes =
          memory.persistent("tensor", Category::activations, {static_cast<int64_t>(t->storage().size())}, DType::u8);
      Tensor view = t->tensor();
      view.data = bytes.data;
      view.device = memory.device();
      views.push_back(t->size() == 0 && t->shape().rank() == 0 ? Tensor() : view);
    }
    return views;
  };
  Exec dry(recorder);
  const Tensors planned = build(recorder);
  {
    ProgramScope scope(recorder, "test");
    body(dry, planned);
  }
  Memory memory(recorder.finish(), {DeviceType::cuda, 0});
  Exec exec(memory);
  const Tensors views = build(memory);
  if (size_t begin = 0; !views.empty()) {
    for (const PlannedBuffer& b : memory.plan().persistent) begin += b.bytes;
    auto* const arena = static_cast<std::byte*>(views.front().data) - memory.plan().persistent.front().offset;
    memory.gpu()->fill(arena + begin, 0xff, memory.plan().arena_bytes - begin);
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    auto& bytes = tensors[i]->storage();
    memory.gpu()->copy_to_device(views[i].data, bytes.data(), bytes.size());
  }
  {
    ProgramScope scope(memory, "test");
    body(exec, views);
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    auto& bytes = tensors[i]->storage();
    memory.gpu()->copy_to_host(bytes.data(), views[i].data, bytes.size());
  }
  REQUIRE(exec.flops == dry.flops);
  return exec.flops;
}

/// Root of the mean square of an output's finite elements: what differences are measured in, beside the element itself.
inline double size_of(const HostTensor& t) {
  double sum = 0;
  for (int64_t i = 0; i < t.size(); ++i) sum += std::isfinite(t.get(i)) ? t.get(i) * t.get(i) : 0.0;
  return t.size() == 0 ? 0 : std::sqrt(sum / static_cast<double>(t.size()));
}

/// What an output's differences are measured in. A handful of elements may all be the rest of a cancellation, whose
/// error is one of its terms: then the largest of the call's floating-point tensors counts, as they were before it.
inline double measure_of(const HostTensor& output, const std::vector<HostTensor>& before) {
  constexpr int64_t kHandful = 8;
  double size = size_of(output);
  if (output.size() >= kHandful) return size;
  for (const HostTensor& t : before) {
    if (t.dtype() != DType::i32 && t.dtype() != DType::u8) size = std::max(size, size_of(t));
  }
  return size;
}

/// For each tensor nothing, or for each of its elements an absolute error that its own terms explain: for outputs that
/// are sums of so unequal terms that the size of the whole tensor says little about one element.
using Errors = std::vector<std::vector<double>>;

/// Runs `body` over `tensors` with the CPU twin, and twice with the CUDA twin. Requires that both give the same
/// elements to `relative`·(|element| + size of the tensor), or to what `errors` allow if that is more, that nothing but
/// elements changed, and that the CUDA twin gives the same bits twice.
inline void compare_twins(const std::vector<HostTensor*>& tensors, double relative, const OpBody& body,
                          const Errors& errors = {}) {
  std::vector<HostTensor> cpu, first, second;
  for (HostTensor* t : tensors) cpu.push_back(*t);
  const std::vector<HostTensor> before = cpu;
  first = second = cpu;
  const auto pointers = [](std::vector<HostTensor>& list) {
    std::vector<HostTensor*> all;
    for (HostTensor& t : list) all.push_back(&t);
    return all;
  };
  const double cpu_flops = run_op([&](Exec& exec) {
    Tensors views;
    for (HostTensor& t : cpu) views.push_back(t.shape().rank() == 0 ? Tensor() : t.tensor());
    body(exec, views);
  });
  const double gpu_flops = run_on_gpu(pointers(first), body);
  run_on_gpu(pointers(second), body);
  CHECK(cpu_flops == gpu_flops);
  for (size_t i = 0; i < tensors.size(); ++i) {
    INFO("tensor " << i << " of the call, " << dtype_name(cpu[i].dtype()) << " " << cpu[i].shape().str());
    REQUIRE(first[i].gaps_intact());
    std::vector<double> want = cpu[i].values();
    if (i < errors.size() && !errors[i].empty()) {  // what lies within its own error counts as equal
      for (size_t e = 0; e < want.size(); ++e) {
        const double got = first[i].get(static_cast<int64_t>(e));
        if (std::fabs(got - want[e]) <= errors[i][e] + relative * std::fabs(want[e])) want[e] = got;
      }
    }
    require_close(first[i], want, relative * measure_of(cpu[i], before), relative);
    REQUIRE(first[i].same_bits(second[i]));
  }
  for (size_t i = 0; i < tensors.size(); ++i) *tensors[i] = first[i];
}

/// Another seed each time, printed when a test fails.
inline unsigned fresh_seed() {
  static unsigned seed = std::random_device()();
  return seed++;
}

}  // namespace llmz::test
