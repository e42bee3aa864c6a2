#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "llmz/core/gpu.h"
#include "llmz/core/tensor.h"

namespace llmz {

/// What a buffer is for; `llmz plan` prints one line for each.
enum class Category : uint8_t {
  weights,
  gradients,
  optimizer,
  projectors,
  codes,
  activations,
  workspace,
  communication
};
constexpr int kCategories = 8;
std::string_view category_name(Category c);

/// One buffer of a plan. Spans live from `begin` to `end` (event numbers inside their program);
/// persistent buffers live always.
struct PlannedBuffer {
  std::string name;
  Category category = Category::workspace;
  size_t bytes = 0;   ///< rounded up to the plan's alignment
  size_t offset = 0;  ///< from the start of the arena
  int begin = 0, end = 0;
  std::string_view role = {};  ///< what the layer that asked calls it: a constant of the program; may be empty
};

/// One traced pass (a training micro-step, an evaluation, an optimizer update). Programs never overlap in
/// time, so they share the same region of the arena.
struct PlannedProgram {
  std::string name;
  std::vector<PlannedBuffer> spans;
  size_t bytes = 0;         ///< extent of the region this program needs
  bool may_shrink = false;  ///< recorded at its largest; spans may be smaller when replayed
};

/// Where every byte of a run lives. Made by `Memory::finish`, printed by `llmz plan`, allocated by `Memory`.
struct MemoryPlan {
  std::vector<PlannedBuffer> persistent;
  std::vector<PlannedProgram> programs;
  size_t arena_bytes = 0;  ///< exactly what will be allocated

  struct Totals {
    size_t by_category[kCategories] = {};
    size_t packing = 0;  ///< alignment and holes between spans at the moment of the peak
    size_t total = 0;    ///< = sum of the above = arena_bytes
    std::string peak_program;
  };
  /// Bytes by category at the moment when the most memory is in use.
  Totals totals() const;
  /// The spans of `program` that are alive at the moment when it holds the most.
  static std::vector<const PlannedBuffer*> live_at_peak(const PlannedProgram& program);
  /// The program of that name; Error when there is none.
  const PlannedProgram& program(std::string_view name) const;
};

class Memory;

/// A counted handle on a span. The span ends when its last copy is gone, so sharing a tensor (an attention
/// output that is also a linear layer's stored input) costs nothing and cannot dangle.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer& other);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer other) noexcept;
  ~Buffer();

  const Tensor& tensor() const { return tensor_; }
  explicit operator bool() const { return memory_ != nullptr; }
  void reset() { *this = Buffer(); }

 private:
  friend class Memory;
  Buffer(Memory* memory, int slot, Tensor tensor) : memory_(memory), slot_(slot), tensor_(tensor) {}
  Memory* memory_ = nullptr;
  int slot_ = -1;
  Tensor tensor_;
};

/// The one allocator of a run, in two lives. The first records: a model is built and one step of every
/// program is run on `meta`, and each request is noted. `finish` packs the notes into a MemoryPlan. The second
/// life allocates one arena of exactly that size and hands the same requests their addresses again, in the
/// same order; a request that deviates from the plan is an Error, never a hidden allocation. So is a buffer held
/// longer than it was while recording, since its bytes may already be another's.
class Memory {
 public:
  /// Records what a run on a device of type `target` needs; such a device need not be there.
  explicit Memory(DeviceType target = DeviceType::cpu);
  /// Allocates `plan.arena_bytes` (zero-filled) on `device` and replays. Throws Error when there is not enough.
  explicit Memory(MemoryPlan plan, Device device = {});
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  bool recording() const { return recording_; }
  /// Where the tensors are that it hands out: nowhere while recording.
  Device device() const { return recording_ ? Device{DeviceType::meta, 0} : device_; }
  /// Where the run takes place, also while recording: ops ask it for what workspace they need.
  DeviceType target() const { return device_.type; }
  /// The GPU of a live arena on one; null otherwise.
  Gpu* gpu() const { return gpu_.get(); }
  const MemoryPlan& plan() const { return plan_; }

  /// A buffer for the whole run. Zero-filled at the start.
  Tensor persistent(std::string_view name, Category category, Shape shape, DType dtype);
  /// A buffer until its handle is dropped; contents undefined. Only inside a program. On a GPU the rows of a bf16
  /// activation or code begin at multiples of 16 bytes, as tensor cores want them, whatever the width: 5461 columns
  /// have a pitch of 5464.
  /// `role`, a constant, is noted in the plan.
  Buffer take(std::string_view name, Category category, Shape shape, DType dtype, std::string_view role = {});

  /// `may_shrink` is for programs whose buffers vary with a length that is not in their shapes (decoding one token
  /// after more and more others): recorded at the largest, they may ask for less later. Elsewhere sizes are exact.
  void begin_program(std::string_view name, bool may_shrink = false);
  /// All buffers taken since `begin_program` must be back, and none of them late.
  void end_program();

  /// Ends recording and packs.
  MemoryPlan finish();

 private:
  friend class Buffer;
  struct Slot {
    int references = 0;
  };
  void retain(int slot);
  void release(int slot);
  void check_none_late() const;
  PlannedProgram* find_program(std::string_view name);
  int64_t row_pitch(Category category, const Shape& shape, DType dtype) const;
  Tensor view(const PlannedBuffer& planned, Shape shape, DType dtype) const;

  bool recording_ = true;
  Device device_;
  std::unique_ptr<Gpu> gpu_;
  MemoryPlan plan_;
  PlannedProgram* program_ = nullptr;
  std::vector<Slot> slots_;
  int clock_ = 0;
  int live_ = 0;
  int late_ = -1;  ///< replaying: a slot given back after a buffer that was planned to follow it was taken
  size_t next_persistent_ = 0;
  std::byte* arena_ = nullptr;
};

/// Begins a program and ends it when the scope is left.
class ProgramScope {
 public:
  ProgramScope(Memory& memory, std::string_view name, bool may_shrink = false)
      : memory_(memory), unwinding_(std::uncaught_exceptions()) {
    memory_.begin_program(name, may_shrink);
  }
  ~ProgramScope() noexcept(false) {
    if (std::uncaught_exceptions() == unwinding_) memory_.end_program();
  }
  ProgramScope(const ProgramScope&) = delete;
  ProgramScope& operator=(const ProgramScope&) = delete;

 private:
  Memory& memory_;
  int unwinding_;
};

}  // namespace llmz
