#include "llmz/engine/matmul_peak.h"

#include <algorithm>
#include <chrono>

#include "llmz/core/planned.h"
#include "llmz/core/random.h"
#include "llmz/core/system.h"
#include "llmz/ops/elementwise.h"
#include "llmz/ops/matmul.h"

namespace llmz::engine {
namespace {

constexpr int64_t kSize = 2048, kGpuSize = 8192;  // large enough to keep all of it busy
constexpr int64_t kEmulatedSize = 128;
constexpr double kEnough = 0.5;  // seconds: a slow machine need not repeat

struct Operands {
  Tensor a, b, c;
  Operands(Memory& memory, DType type, int64_t size) {
    for (Tensor* t : {&a, &b, &c}) *t = memory.persistent("operand", Category::workspace, {size, size}, type);
  }
  void multiply(Exec& exec) const {
    const ProgramScope program(exec.memory, "multiply");
    ops::matmul(exec, {.c = c, .a = a, .b = b});
    if (exec.memory.gpu() != nullptr) exec.memory.gpu()->synchronize();
  }
};

}  // namespace

double measure_matmul_peak(Device device, DType type, bool tf32, int repetitions) {
  const bool emulated = cuda_info().built && cuda_info().emulated;
  const int64_t size = device.type == DeviceType::cpu ? kSize : emulated ? kEmulatedSize : kGpuSize;
  const Planned<Operands> operands(
      device, [&](Memory& memory) { return Operands(memory, type, size); },
      [](Operands& body, Exec& exec) { body.multiply(exec); });
  if (Gpu* const gpu = operands.memory().gpu(); gpu != nullptr) gpu->set_tf32(tf32);
  Exec& exec = operands.exec();
  // Random numbers, as a model's are: a GPU that multiplies constants draws less power and keeps a higher clock.
  const RandomStream random(0, Purpose::sampling);
  ops::fill_normal(exec, operands->a, random, 0, 1.0f);
  ops::fill_normal(exec, operands->b, random, static_cast<uint64_t>(size * size), 1.0f);
  operands->multiply(exec);  // the first call compiles the kernel and touches the pages

  double best = 0, total = 0;
  for (int i = 0; i < repetitions && total < kEnough; ++i) {
    exec.flops = 0;
    const auto start = std::chrono::steady_clock::now();
    operands->multiply(exec);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, exec.flops / seconds.count());
    total += seconds.count();
  }
  return best;
}

}  // namespace llmz::engine
