#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "llmz/core/dtype.h"
#ifndef __CUDACC__  // nvcc does not take fmt, and device code throws nothing
#include "llmz/core/error.h"
#endif

namespace llmz {

/// Where bytes live. `meta` is nowhere: a tensor with a shape and no data, which every op accepts,
/// checks and leaves alone. Planning a step is running it on `meta`.
enum class DeviceType : uint8_t { cpu, cuda, meta };

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

std::string device_name(Device device);

/// Up to four dimensions, row-major.
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i)]; }
  int64_t& operator[](int i) { return dims_[static_cast<size_t>(i)]; }
  int64_t numel() const;
  std::string str() const;  ///< "[2, 3]"
  bool operator==(const Shape&) const = default;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

/// A view: pointer, element type, shape, strides (in elements), device. Owns nothing; copying it
/// copies the view. A default-constructed tensor is "absent" and stands for an optional argument.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;
  std::array<int64_t, Shape::kMaxRank> strides{};
  Device device;

  Tensor() = default;
  /// Contiguous, row-major.
  Tensor(void* data, DType dtype, Shape shape, Device device = {});

  bool present() const { return shape.rank() > 0; }
  bool is_meta() const { return device.type == DeviceType::meta; }
  int rank() const { return shape.rank(); }
  int64_t dim(int i) const { return shape[i]; }
  int64_t stride(int i) const { return strides[static_cast<size_t>(i)]; }
  int64_t numel() const { return shape.numel(); }
  /// Bytes of the elements themselves (gaps between strided rows not counted).
  size_t bytes() const { return static_cast<size_t>(numel()) * dtype_bytes(dtype); }
  bool contiguous() const;
  /// The last dimension is dense: rows may have gaps between them.
  bool rows_dense() const { return rank() == 0 || stride(rank() - 1) == 1; }

  /// Same elements under another shape; the tensor must be contiguous.
  Tensor reshape(Shape to) const;
  /// Elements [begin, begin + count) of dimension `d`; strides kept.
  Tensor slice(int d, int64_t begin, int64_t count) const;

  /// Typed pointer; throws Error when the dtype differs.
  template <class T>
  T* as() const {
    if (dtype != dtype_of<T>::value) wrong_dtype(dtype_of<T>::value);
    return static_cast<T*>(data);
  }

 private:
  [[noreturn]] void wrong_dtype(DType wanted) const;
};

}  // namespace llmz
