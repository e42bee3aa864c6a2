#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "catch.h"
#include "llmz/core/tensor.h"

namespace llmz::test {

/// Half the spacing of numbers near 1: the relative error of one rounding.
inline double rounding(DType t) {
  return t == DType::bf16 ? std::ldexp(1.0, -8) : t == DType::f64 ? std::ldexp(1.0, -53) : std::ldexp(1.0, -24);
}

/// A tensor that owns its elements, reads and writes them as doubles in row-major order, and may have gaps of
/// `row_gap` elements after each row; the gaps are filled with a pattern that `gaps_intact` looks for.
class HostTensor {
 public:
  HostTensor() = default;
  HostTensor(DType dtype, Shape shape, int64_t row_gap = 0) : dtype_(dtype), shape_(shape) {
    const int last = shape.rank() - 1;
    row_ = shape[last];
    pitch_ = row_ + row_gap;
    rows_ = row_ == 0 ? 0 : shape.numel() / row_;
    bytes_.assign(static_cast<size_t>(rows_ * pitch_) * dtype_bytes(dtype) + 1, kPattern);
    for (int64_t i = 0; i < size(); ++i) set(i, 0.0);
  }

  /// Standard normal numbers times `scale`, rounded to the dtype.
  static HostTensor random(DType dtype, Shape shape, unsigned seed, double scale = 1.0, int64_t row_gap = 0) {
    HostTensor t(dtype, shape, row_gap);
    std::mt19937 engine(seed);
    std::normal_distribution<double> normal(0.0, scale);
    for (int64_t i = 0; i < t.size(); ++i) t.set(i, normal(engine));
    return t;
  }

  Tensor tensor() {
    Tensor t(bytes_.data(), dtype_, shape_);
    int64_t step = pitch_;
    for (int d = shape_.rank() - 2; d >= 0; --d) {
      t.strides[static_cast<size_t>(d)] = step;
      step *= shape_[d];
    }
    return t;
  }

  int64_t size() const { return shape_.numel(); }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }

  double get(int64_t i) const {
    const std::byte* p = address(i);
    switch (dtype_) {
      case DType::f32: return read<float>(p);
      case DType::f64: return read<double>(p);
      case DType::i32: return read<int32_t>(p);
      case DType::u8: return read<uint8_t>(p);
      case DType::bf16: return static_cast<double>(static_cast<float>(read<bf16>(p)));
    }
    return 0;
  }

  void set(int64_t i, double value) {
    std::byte* p = const_cast<std::byte*>(address(i));
    switch (dtype_) {
      case DType::f32: return write(p, static_cast<float>(value));
      case DType::f64: return write(p, value);
      case DType::i32: return write(p, static_cast<int32_t>(value));
      case DType::u8: return write(p, static_cast<uint8_t>(value));
      case DType::bf16: return write(p, bf16(static_cast<float>(value)));
    }
  }

  std::vector<double> values() const {
    std::vector<double> v(static_cast<size_t>(size()));
    for (int64_t i = 0; i < size(); ++i) v[static_cast<size_t>(i)] = get(i);
    return v;
  }
  void assign(const std::vector<double>& v) {
    for (int64_t i = 0; i < size(); ++i) set(i, v[static_cast<size_t>(i)]);
  }

  bool gaps_intact() const {
    const size_t element = dtype_bytes(dtype_);
    for (int64_t r = 0; r < rows_; ++r) {
      for (size_t b = static_cast<size_t>(r * pitch_ + row_) * element;
           b < static_cast<size_t>((r + 1) * pitch_) * element; ++b) {
        if (bytes_[b] != kPattern) return false;
      }
    }
    return bytes_.empty() || bytes_.back() == kPattern;
  }
  /// All bytes, gaps and the pattern behind the last row included.
  std::vector<std::byte>& storage() { return bytes_; }
  /// Gaps included.
  bool same_bits(const HostTensor& other) const { return bytes_ == other.bytes_; }

 private:
  static constexpr std::byte kPattern{0x5a};
  template <class T>
  static T read(const std::byte* p) {
    T x;
    std::memcpy(&x, p, sizeof(T));
    return x;
  }
  template <class T>
  static void write(std::byte* p, T x) {
    std::memcpy(p, &x, sizeof(T));
  }
  const std::byte* address(int64_t i) const {
    return bytes_.data() + static_cast<size_t>(i / row_ * pitch_ + i % row_) * dtype_bytes(dtype_);
  }

  DType dtype_ = DType::f32;
  Shape shape_;
  int64_t row_ = 0, pitch_ = 0, rows_ = 0;
  std::vector<std::byte> bytes_;
};

/// Every element i: |got − want| ≤ absolute[i] + relative·|want|.
inline void require_close(const HostTensor& got, const std::vector<double>& want, const std::vector<double>& absolute,
                          double relative) {
  REQUIRE(static_cast<size_t>(got.size()) == want.size());
  REQUIRE(absolute.size() == want.size());
  int64_t worst = -1;
  double worst_excess = 0;
  for (int64_t i = 0; i < got.size(); ++i) {
    const auto at = static_cast<size_t>(i);
    const double excess = std::fabs(got.get(i) - want[at]) - (absolute[at] + relative * std::fabs(want[at]));
    if (!(excess <= worst_excess)) {  // NaN counts as an excess
      worst = i;
      worst_excess = excess;
      if (excess != excess) break;
    }
  }
  if (worst >= 0) {
    const auto at = static_cast<size_t>(worst);
    INFO("element " << worst << " of " << got.shape().str() << ": got " << got.get(worst) << ", want " << want[at]
                    << ", allowed " << absolute[at] << " + " << relative << "·|want|");
    REQUIRE(worst < 0);
  }
}
inline void require_close(const HostTensor& got, const std::vector<double>& want, double absolute, double relative) {
  require_close(got, want, std::vector<double>(want.size(), absolute), relative);
}

}  // namespace llmz::test
