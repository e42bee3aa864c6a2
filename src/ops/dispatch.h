#pragma once

// What every op does before its arithmetic: checks that name op, argument and shapes, and the choice of the twin.

#include <initializer_list>
#include <string_view>
#include <utility>

#include "kernels/cpu/isa.h"
#include "kernels/cuda/workspace.h"
#include "llmz/core/exec.h"

namespace llmz::ops {

/// Checks of one call's arguments. Remembers the device of the first tensor seen and wants the others there too, and
/// that either all floating-point tensors are f64 or none is.
class Arguments {
 public:
  explicit Arguments(std::string_view op) : op_(op) {}

  template <class... Args>
  void require(bool ok, fmt::format_string<Args...> format, Args&&... args) const {
    if (!ok) fail("{}: {}", op_, fmt::format(format, std::forward<Args>(args)...));
  }

  /// f32, bf16 or f64, with dense rows; f64 does not mix with the others.
  void floats(std::string_view name, const Tensor& t) {
    place(name, t);
    if (t.dtype != DType::f32 && t.dtype != DType::bf16 && t.dtype != DType::f64) {
      fail("{}: {} {} holds {}; f32, bf16 or f64 is needed", op_, name, t.shape.str(), dtype_name(t.dtype));
    }
    const bool is_double = t.dtype == DType::f64;
    if (floats_seen_ && is_double != double_) {
      fail("{}: {} {} is {}, but f64 mixes with no other type", op_, name, t.shape.str(), dtype_name(t.dtype));
    }
    floats_seen_ = true;
    double_ = is_double;
  }

  /// `floats` of exactly this shape.
  void floats(std::string_view name, const Tensor& t, const Shape& wanted) {
    floats(name, t);
    shape(name, t, wanted);
  }

  /// f32, or f64 beside f64 tensors: statistics such as a log-sum-exp.
  void statistic(std::string_view name, const Tensor& t, const Shape& wanted) {
    floats(name, t, wanted);
    if (t.dtype == DType::bf16) fail("{}: {} {} holds bf16; f32 is needed", op_, name, t.shape.str());
  }

  void dtype(std::string_view name, const Tensor& t, DType wanted) {
    place(name, t);
    if (t.dtype != wanted) {
      fail("{}: {} {} holds {}, not {}", op_, name, t.shape.str(), dtype_name(t.dtype), dtype_name(wanted));
    }
  }

  /// Wanted where a kernel is written for one element type at a time.
  void same_dtype(std::initializer_list<std::pair<std::string_view, Tensor>> tensors) const {
    const auto& [first_name, first] = *tensors.begin();
    for (const auto& [name, t] : tensors) {
      if (t.dtype == first.dtype) continue;
      fail("{}: {} is {} and {} is {}; they must be of one type", op_, first_name, dtype_name(first.dtype), name,
           dtype_name(t.dtype));
    }
  }

  void shape(std::string_view name, const Tensor& t, const Shape& wanted) const {
    if (t.shape != wanted) fail("{}: {} has shape {}, {} is needed", op_, name, t.shape.str(), wanted.str());
  }

  void rank(std::string_view name, const Tensor& t, int wanted) const {
    if (t.rank() != wanted) {
      fail("{}: {} {} has {} dimensions, {} are needed", op_, name, t.shape.str(), t.rank(), wanted);
    }
  }

  void contiguous(std::string_view name, const Tensor& t) const {
    if (!t.contiguous()) fail("{}: {} {} must be contiguous", op_, name, t.shape.str());
  }

  std::string_view op() const { return op_; }
  Device device() const { return device_; }
  bool is_double() const { return double_; }
  bool mixed_with_meta() const { return mixed_with_meta_; }

 private:
  void place(std::string_view name, const Tensor& t) {
    if (!t.present()) fail("{}: {} is absent", op_, name);
    if (!t.rows_dense()) fail("{}: the rows of {} {} are not dense", op_, name, t.shape.str());
    if (placed_ && !(t.device == device_)) {
      // Planning an op that is made of others, on tensors that are there already, meets its workspace on meta.
      if (!t.is_meta() && device_.type != DeviceType::meta) {
        fail("{}: {} is on {}, the other arguments on {}", op_, name, device_name(t.device), device_name(device_));
      }
      mixed_with_meta_ = true;
      return;
    }
    placed_ = true;
    device_ = t.device;
  }

  std::string_view op_;
  Device device_;
  bool placed_ = false, mixed_with_meta_ = false, floats_seen_ = false, double_ = false;
};

#ifdef LLMZ_HAVE_CUDA
constexpr bool kHaveCuda = true;
#else
constexpr bool kHaveCuda = false;
#endif

/// Calls the twin of the device on which the arguments live; none while planning. A build without CUDA does not
/// instantiate the second.
template <class CpuTwin, class CudaTwin>
void dispatch(const Exec& exec, const Arguments& arguments, CpuTwin&& cpu_twin, CudaTwin&& cuda_twin) {
  const Device device = arguments.device();
  if (exec.dry()) return;
  arguments.require(!arguments.mixed_with_meta(), "some arguments are on meta, others on {}", device_name(device));
  if (device.type == DeviceType::meta) return;
  if (device.type == DeviceType::cpu) {
    cpu::check_environment_isa();
    return cpu_twin();
  }
  arguments.require(!arguments.is_double(), "f64 is computed on the CPU only");
  if constexpr (kHaveCuda && sizeof(CudaTwin) > 0) {
    Gpu* const gpu = exec.memory.gpu();
    arguments.require(gpu != nullptr, "the arguments are on {}, the memory they are used with is not",
                      device_name(device));
    return cuda_twin(*gpu);
  }
  arguments.require(false, "this build has no kernels for {}", device_name(device));
}

/// Workspace of an op, where the twin that will run needs one.
inline Buffer take_workspace(Exec& exec, std::string_view name, const Shape& shape, DType dtype) {
  return shape.rank() == 0 ? Buffer() : exec.memory.take(name, Category::workspace, shape, dtype);
}
inline Buffer take_workspace(Exec& exec, std::string_view name, const cuda::WorkspaceShape& w) {
  return take_workspace(exec, name, w.shape, w.dtype);
}

}  // namespace llmz::ops
