#pragma once

#include <cstdint>

#include "llmz/core/communicator.h"
#include "llmz/core/memory.h"

namespace llmz {

/// Where and with what ops run: one device, its memory, the ranks beside this one, and a count of the arithmetic asked
/// for. Passed to every op; holds no state that changes a result.
struct Exec {
  Memory& memory;
  /// Multiply-adds count as two. Counted by matmul and attention, on `meta` as on a device, so that
  /// `llmz plan` and the progress line speak of the same number.
  double flops = 0;
  /// The other ranks, where a tensor is spread over them; null: there are none.
  Communicator* ranks = nullptr;

  explicit Exec(Memory& m) : memory(m) {}
  /// True while planning: ops check their arguments and return.
  bool dry() const { return memory.recording(); }
  /// Whether the run is, or will be, on a GPU.
  bool on_gpu() const { return memory.target() == DeviceType::cuda; }
};

}  // namespace llmz
