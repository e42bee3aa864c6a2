#pragma once

#include <cstring>
#include <span>
#include <vector>

#include "llmz/core/memory.h"

namespace llmz {

/// Elements of a contiguous tensor to host memory and back; T is the tensor's own type. On a GPU `copy_to_host` waits
/// for all work given before.
template <class T>
void copy_to_host(Memory& memory, std::span<T> to, const Tensor& from) {
  check(from.contiguous() && static_cast<int64_t>(to.size()) == from.numel(), "{} elements do not hold {}", to.size(),
        from.shape.str());
  if (memory.gpu() != nullptr) {
    memory.gpu()->copy_to_host(to.data(), from.as<T>(), from.bytes());
  } else {
    std::memcpy(to.data(), from.as<T>(), from.bytes());
  }
}

template <class T>
void copy_to_device(Memory& memory, const Tensor& to, std::span<const T> from) {
  check(to.contiguous() && static_cast<int64_t>(from.size()) == to.numel(), "{} elements do not fill {}", from.size(),
        to.shape.str());
  if (memory.gpu() != nullptr) {
    memory.gpu()->copy_to_device(to.as<T>(), from.data(), to.bytes());
  } else {
    std::memcpy(to.as<T>(), from.data(), to.bytes());
  }
}

/// A contiguous tensor's elements on the host.
template <class T>
std::vector<T> host_copy(Memory& memory, const Tensor& from) {
  std::vector<T> values(static_cast<size_t>(from.numel()));
  copy_to_host<T>(memory, values, from);
  return values;
}

/// The one element of a scalar tensor.
template <class T>
T host_scalar(Memory& memory, const Tensor& from) {
  return host_copy<T>(memory, from).at(0);
}

/// All bytes of a contiguous tensor become 0.
inline void zero(Memory& memory, const Tensor& t) {
  check(t.contiguous(), "only a contiguous tensor is zeroed whole, not {}", t.shape.str());
  if (t.data == nullptr) return;
  if (memory.gpu() != nullptr) {
    memory.gpu()->fill(t.data, 0, t.bytes());
  } else {
    std::memset(t.data, 0, t.bytes());
  }
}

/// The bytes of one contiguous tensor into another of the same shape and type, both of this memory.
inline void copy_bytes(Memory& memory, const Tensor& to, const Tensor& from) {
  check(to.contiguous() && from.contiguous() && to.shape == from.shape && to.dtype == from.dtype,
        "{} of {} cannot take the bytes of {} of {}", to.shape.str(), dtype_name(to.dtype), from.shape.str(),
        dtype_name(from.dtype));
  if (to.data == nullptr) return;
  if (memory.gpu() != nullptr) {
    memory.gpu()->copy_on_device(to.data, from.data, to.bytes());
  } else {
    std::memcpy(to.data, from.data, to.bytes());
  }
}

/// A contiguous tensor where the host can read and write it: itself on the CPU, a copy of a GPU's.
class HostMirror {
 public:
  /// `memory` holds the tensor where that is on a GPU, and may be null where it is not.
  HostMirror(Memory* memory, const Tensor& original) : memory_(memory), original_(original), view_(original) {
    if (original.device.type != DeviceType::cuda) return;
    check(memory != nullptr && memory->gpu() != nullptr && original.contiguous(),
          "a tensor on a GPU has a mirror only where it is contiguous and its memory is known");
    copy_.resize(original.bytes());
    view_.data = copy_.data();
    view_.device = {};
  }
  void download() {
    if (!copy_.empty()) memory_->gpu()->copy_to_host(copy_.data(), original_.data, copy_.size());
  }
  void upload() {
    if (!copy_.empty()) memory_->gpu()->copy_to_device(original_.data, copy_.data(), copy_.size());
  }
  const Tensor& tensor() const { return view_; }

 private:
  Memory* memory_;
  Tensor original_, view_;
  std::vector<std::byte> copy_;
};

}  // namespace llmz
