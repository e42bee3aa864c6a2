#include "llmz/core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <utility>

namespace llmz {
namespace {

constexpr size_t kAlignment = 256;  // a cache line on the CPU, a memory transaction with room on a GPU
constexpr size_t kPage = 4096;

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/// Offsets for buffers with lifetimes: largest first, each at the lowest place where it meets no buffer that is alive
/// at the same time. Returns the extent.
size_t pack(std::vector<PlannedBuffer>& spans) {
  std::vector<size_t> order(spans.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return spans[a].bytes > spans[b].bytes; });
  std::vector<size_t> placed;  // kept sorted by offset
  size_t extent = 0;
  for (size_t index : order) {
    PlannedBuffer& span = spans[index];
    size_t offset = 0;
    for (size_t other_index : placed) {
      const PlannedBuffer& other = spans[other_index];
      const bool together = other.begin < span.end && span.begin < other.end;
      if (!together) continue;
      if (offset + span.bytes <= other.offset) break;
      offset = std::max(offset, other.offset + other.bytes);
    }
    span.offset = offset;
    extent = std::max(extent, offset + span.bytes);
    const auto at = std::upper_bound(placed.begin(), placed.end(), offset,
                                     [&](size_t value, size_t i) { return value < spans[i].offset; });
    placed.insert(at, index);
  }
  return extent;
}

}  // namespace

std::string_view category_name(Category c) {
  switch (c) {
    case Category::weights: return "weights";
    case Category::gradients: return "gradients";
    case Category::optimizer: return "optimizer";
    case Category::projectors: return "projectors";
    case Category::codes: return "codes";
    case Category::activations: return "activations";
    case Category::workspace: return "workspace";
    case Category::communication: return "communication";
  }
  return "?";
}

std::vector<const PlannedBuffer*> MemoryPlan::live_at_peak(const PlannedProgram& program) {
  const auto alive = [](const PlannedBuffer& b, int moment) { return b.begin <= moment && moment < b.end; };
  size_t peak = 0;
  int moment = -1;
  for (const PlannedBuffer& at : program.spans) {  // live bytes can only peak where a span begins
    size_t live = 0;
    for (const PlannedBuffer& b : program.spans) live += alive(b, at.begin) ? b.bytes : 0;
    if (live > peak) peak = live, moment = at.begin;
  }
  std::vector<const PlannedBuffer*> buffers;
  for (const PlannedBuffer& b : program.spans) {
    if (alive(b, moment)) buffers.push_back(&b);
  }
  return buffers;
}

const PlannedProgram& MemoryPlan::program(std::string_view name) const {
  const auto it = std::find_if(programs.begin(), programs.end(), [&](const auto& p) { return p.name == name; });
  check(it != programs.end(), "the memory plan has no program '{}'", name);
  return *it;
}

MemoryPlan::Totals MemoryPlan::totals() const {
  Totals totals;
  for (const PlannedBuffer& b : persistent) totals.by_category[static_cast<int>(b.category)] += b.bytes;
  const auto largest = std::max_element(programs.begin(), programs.end(),
                                        [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
  if (largest != programs.end()) {
    totals.peak_program = largest->name;
    for (const PlannedBuffer* b : live_at_peak(*largest)) totals.by_category[static_cast<int>(b->category)] += b->bytes;
  }
  const size_t named = std::accumulate(std::begin(totals.by_category), std::end(totals.by_category), size_t{0});
  totals.total = arena_bytes;
  totals.packing = arena_bytes - named;
  return totals;
}

Buffer::Buffer(const Buffer& other) : memory_(other.memory_), slot_(other.slot_), tensor_(other.tensor_) {
  if (memory_ != nullptr) memory_->retain(slot_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)), slot_(std::exchange(other.slot_, -1)), tensor_(other.tensor_) {
  other.tensor_ = Tensor();
}

Buffer& Buffer::operator=(Buffer other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(slot_, other.slot_);
  std::swap(tensor_, other.tensor_);
  return *this;
}

Buffer::~Buffer() {
  if (memory_ != nullptr) memory_->release(slot_);
}

Memory::Memory(DeviceType target) : device_{target, 0} {}

Memory::Memory(MemoryPlan plan, Device device) : recording_(false), device_(device), plan_(std::move(plan)) {
  if (device.type == DeviceType::cuda) gpu_ = std::make_unique<Gpu>(device.index);
  if (plan_.arena_bytes == 0) return;
  if (gpu_ != nullptr) {
    arena_ = static_cast<std::byte*>(gpu_->allocate(plan_.arena_bytes));
    return;
  }
  void* p = mmap(nullptr, plan_.arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(p != MAP_FAILED,
        "cannot allocate the planned {:.2f} GiB: {}; a smaller micro_batch or a leaner 'activations' setting needs "
        "less (see `llmz plan`)",
        static_cast<double>(plan_.arena_bytes) / (1u << 30), std::strerror(errno));
  madvise(p, plan_.arena_bytes, MADV_HUGEPAGE);  // fewer page faults; harmless where refused
  arena_ = static_cast<std::byte*>(p);
}

Memory::~Memory() {
  if (arena_ == nullptr) return;
  if (gpu_ != nullptr) {
    gpu_->release(arena_);
  } else {
    munmap(arena_, plan_.arena_bytes);
  }
}

Tensor Memory::view(const PlannedBuffer& planned, Shape shape, DType dtype) const {
  return Tensor(recording_ ? nullptr : arena_ + planned.offset, dtype, shape, device());
}

Tensor Memory::persistent(std::string_view name, Category category, Shape shape, DType dtype) {
  const size_t bytes = round_up(static_cast<size_t>(shape.numel()) * dtype_bytes(dtype), kAlignment);
  if (recording_) {
    plan_.persistent.push_back({std::string(name), category, bytes, 0, 0, 0});
    return view(plan_.persistent.back(), shape, dtype);
  }
  check(next_persistent_ < plan_.persistent.size() && plan_.persistent[next_persistent_].name == name &&
            plan_.persistent[next_persistent_].bytes == bytes,
        "memory request '{}' ({} bytes) deviates from the plan", name, bytes);
  return view(plan_.persistent[next_persistent_++], shape, dtype);
}

int64_t Memory::row_pitch(Category category, const Shape& shape, DType dtype) const {
  constexpr int64_t kElements = 8;  // of bf16 in 16 bytes
  const bool padded = target() == DeviceType::cuda && dtype == DType::bf16 && shape.rank() == 2 &&
                      (category == Category::activations || category == Category::codes);
  return padded ? (shape[1] + kElements - 1) / kElements * kElements : shape.rank() == 0 ? 0 : shape[shape.rank() - 1];
}

Buffer Memory::take(std::string_view name, Category category, Shape shape, DType dtype, std::string_view role) {
  check(program_ != nullptr, "buffer '{}' was requested outside any program", name);
  check_none_late();
  const int64_t pitch = row_pitch(category, shape, dtype);
  const int64_t width = shape.rank() == 0 ? 1 : shape[shape.rank() - 1];
  const int64_t elements = width == 0 ? 0 : shape.numel() / width * pitch;
  const size_t bytes = round_up(static_cast<size_t>(elements) * dtype_bytes(dtype), kAlignment);
  const size_t slot = slots_.size();
  slots_.push_back({1});
  if (recording_) {
    program_->spans.push_back({std::string(name), category, bytes, 0, clock_++, -1, role});
  } else {
    check(slot < program_->spans.size() && program_->spans[slot].name == name &&
              (program_->spans[slot].bytes == bytes || (program_->may_shrink && bytes < program_->spans[slot].bytes)),
          "memory request '{}' ({} bytes) deviates from the plan of program '{}'", name, bytes, program_->name);
  }
  ++live_;
  Tensor tensor = view(program_->spans[slot], shape, dtype);
  if (pitch != width) tensor.strides[0] = pitch;
  return Buffer(this, static_cast<int>(slot), tensor);
}

void Memory::retain(int slot) { ++slots_[static_cast<size_t>(slot)].references; }

void Memory::release(int slot) {
  if (static_cast<size_t>(slot) >= slots_.size() || --slots_[static_cast<size_t>(slot)].references > 0) return;
  --live_;
  if (program_ == nullptr) return;
  PlannedBuffer& span = program_->spans[static_cast<size_t>(slot)];
  if (recording_) {
    span.end = clock_++;
  } else if (span.end < program_->spans[slots_.size() - 1].begin) {
    late_ = slot;  // not thrown here: handles are dropped in destructors
  }
}

void Memory::check_none_late() const {
  if (late_ < 0) return;
  fail("buffer '{}' of program '{}' was held longer than planned; its memory was already given to another",
       program_->spans[static_cast<size_t>(late_)].name, program_->name);
}

PlannedProgram* Memory::find_program(std::string_view name) {
  const auto it =
      std::find_if(plan_.programs.begin(), plan_.programs.end(), [&](const auto& p) { return p.name == name; });
  return it == plan_.programs.end() ? nullptr : &*it;
}

void Memory::begin_program(std::string_view name, bool may_shrink) {
  check(program_ == nullptr, "program '{}' begins inside program '{}'", name, program_ ? program_->name : "");
  if (recording_) {
    check(find_program(name) == nullptr, "program '{}' was planned twice", name);
    plan_.programs.push_back({std::string(name), {}, 0, may_shrink});
    program_ = &plan_.programs.back();
  } else {
    program_ = find_program(name);
    check(program_ != nullptr, "program '{}' is not in the memory plan", name);
    slots_.reserve(program_->spans.size());
  }
  slots_.clear();
  clock_ = 0;
  live_ = 0;
  late_ = -1;
}

void Memory::end_program() {
  check(program_ != nullptr && live_ == 0, "program '{}' ended with {} buffers still held",
        program_ ? program_->name : "", live_);
  check_none_late();
  program_ = nullptr;
}

MemoryPlan Memory::finish() {
  check(recording_ && program_ == nullptr, "a memory plan is finished once, outside any program");
  size_t offset = 0;
  for (PlannedBuffer& b : plan_.persistent) {
    b.offset = offset;
    offset += b.bytes;
  }
  size_t region = 0;
  for (PlannedProgram& p : plan_.programs) {
    p.bytes = pack(p.spans);
    for (PlannedBuffer& b : p.spans) b.offset += offset;
    region = std::max(region, p.bytes);
  }
  plan_.arena_bytes = round_up(offset + region, kPage);
  return std::move(plan_);
}

}  // namespace llmz
