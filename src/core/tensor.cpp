#include "llmz/core/tensor.h"

namespace llmz {

std::string device_name(Device device) {
  switch (device.type) {
    case DeviceType::cpu: return "cpu";
    case DeviceType::cuda: return fmt::format("cuda:{}", device.index);
    case DeviceType::meta: return "meta";
  }
  return "?";
}

Shape::Shape(std::initializer_list<int64_t> dims) {
  check(dims.size() <= kMaxRank, "a shape has at most {} dimensions, not {}", kMaxRank, dims.size());
  for (int64_t d : dims) {
    check(d >= 0, "a dimension cannot be negative: {}", d);
    dims_[static_cast<size_t>(rank_++)] = d;
  }
}

int64_t Shape::numel() const {
  if (rank_ == 0) return 0;
  int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= (*this)[i];
  return n;
}

std::string Shape::str() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string((*this)[i]);
  return s + "]";
}

Tensor::Tensor(void* data_, DType dtype_, Shape shape_, Device device_)
    : data(data_), dtype(dtype_), shape(shape_), device(device_) {
  int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[static_cast<size_t>(i)] = step;
    step *= shape[i];
  }
}

bool Tensor::contiguous() const {
  int64_t step = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (dim(i) != 1 && stride(i) != step) return false;
    step *= dim(i);
  }
  return true;
}

Tensor Tensor::reshape(Shape to) const {
  check(contiguous(), "cannot reshape a strided tensor {} to {}", shape.str(), to.str());
  check(to.numel() == numel(), "cannot reshape {} to {}: different sizes", shape.str(), to.str());
  return Tensor(data, dtype, to, device);
}

Tensor Tensor::slice(int d, int64_t begin, int64_t count) const {
  check(d >= 0 && d < rank() && begin >= 0 && count >= 0 && begin + count <= dim(d),
        "slice [{}, {}) of dimension {} is outside {}", begin, begin + count, d, shape.str());
  Tensor t = *this;
  t.shape[d] = count;
  if (data != nullptr)
    t.data = static_cast<std::byte*>(data) + static_cast<size_t>(begin * stride(d)) * dtype_bytes(dtype);
  return t;
}

void Tensor::wrong_dtype(DType wanted) const {
  fail("tensor {} holds {}, not {}", shape.str(), dtype_name(dtype), dtype_name(wanted));
}

}  // namespace llmz
