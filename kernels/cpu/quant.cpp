#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/cpu/hadamard.h"
#include "kernels/cpu/random_bits.h"
#include "kernels/cpu/row_max.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

/// largest/top, rounded up to bf16. Not below 2^-126, so that its reciprocal is a number too.
LLMZ_INLINE bf16 make_scale(float largest, float top) {
  constexpr float kSmallest = std::numeric_limits<float>::min();
  float s = largest / top;
  s = s < kSmallest && largest > 0 ? kSmallest : s;
  const uint32_t u = std::bit_cast<uint32_t>(s);
  bf16 scale;
  scale.bits = static_cast<uint16_t>(u > 0x7f800000u ? 0x7fc0u : (u + 0xffffu) >> 16);
  return scale;
}

// The loops below take `count` elements from the start of a group on, and a scale for each group. kFixed is the group's
// size where the compiler should know it, else 0.

template <int64_t kFixed, class Real>
LLMZ_INLINE void scales_loop(bf16* scales, const Real* x, int64_t count, int64_t any, float top) {
  const int64_t group = kFixed > 0 ? kFixed : any;
  for (; count >= group; count -= group, x += group) {
    *scales++ = make_scale(static_cast<float>(largest_magnitude(x, group)), top);
  }
  if (count > 0) *scales = make_scale(static_cast<float>(largest_magnitude(x, count)), top);
}

/// q = ⌊x/s + half⌋ within 0 … 2·half − 1: levels lie at s·(q − half + ½), so this is the nearest. NaN becomes 0.
template <class Real>
LLMZ_INLINE void nearest(uint8_t* __restrict q, const Real* __restrict x, Real inverse, Real half, int64_t n) {
  const Real last = 2 * half - Real(0.5);
  for (int64_t i = 0; i < n; ++i) {
    Real u = x[i] * inverse + half;
    u = u > 0 ? u : 0;
    u = u < last ? u : last;
    q[i] = static_cast<uint8_t>(static_cast<int32_t>(u));
  }
}

/// q = ⌊u + U⌋ with u = x/s + half − ½ within 0 … 2·half − 1 and U uniform in [0, 1), both with 22 bits after the
/// point.
template <class Real>
LLMZ_INLINE void stochastic(uint8_t* __restrict q, const Real* __restrict x, const uint32_t* __restrict random,
                            Real inverse, Real half, int64_t n) {
  constexpr int kFraction = 22;
  constexpr Real kOne = 1 << kFraction;
  const Real last = 2 * half - 1, centre = half - Real(0.5);
  for (int64_t i = 0; i < n; ++i) {
    Real u = x[i] * inverse + centre;
    u = u > 0 ? u : 0;
    u = u < last ? u : last;
    const int32_t sum = static_cast<int32_t>(u * kOne) + static_cast<int32_t>(random[i] >> (32 - kFraction));
    q[i] = static_cast<uint8_t>(sum >> kFraction);
  }
}

template <class Real>
LLMZ_INLINE void encode_group(uint8_t* q, const Real* x, const uint32_t* random, bf16 scale, Real half, int64_t n) {
  const Real s = load(&scale);
  const Real inverse = s == 0 ? Real(0) : Real(1) / s;
  if (random == nullptr) {
    nearest(q, x, inverse, half, n);
  } else {
    stochastic(q, x, random, inverse, half, n);
  }
}

template <int64_t kFixed, class Real>
LLMZ_INLINE void encode_loop(uint8_t* q, const Real* x, const bf16* scales, const uint32_t* random, int64_t count,
                             int64_t any, Real half) {
  const int64_t group = kFixed > 0 ? kFixed : any;
  int64_t i = 0;
  for (; i + group <= count; i += group) {
    encode_group(q + i, x + i, random == nullptr ? random : random + i, *scales++, half, group);
  }
  if (i < count) encode_group(q + i, x + i, random == nullptr ? random : random + i, *scales, half, count - i);
}

template <class Real>
LLMZ_INLINE void decode_group(Real* __restrict x, const uint8_t* __restrict q, bf16 scale, Real centre, int64_t n) {
  const Real s = load(&scale);
  for (int64_t i = 0; i < n; ++i) x[i] = s * (static_cast<Real>(static_cast<int32_t>(q[i])) - centre);
}

template <int64_t kFixed, class Real>
LLMZ_INLINE void decode_loop(Real* x, const uint8_t* q, const bf16* scales, int64_t count, int64_t any, Real centre) {
  const int64_t group = kFixed > 0 ? kFixed : any;
  int64_t i = 0;
  for (; i + group <= count; i += group) decode_group(x + i, q + i, *scales++, centre, group);
  if (i < count) decode_group(x + i, q + i, *scales, centre, count - i);
}

// With the group that the compiler should know, where it is that one.

template <class Real>
LLMZ_INLINE void scales_row(bf16* scales, const Real* x, int64_t count, int64_t group, float top) {
  group == 32 ? scales_loop<32>(scales, x, count, group, top) : scales_loop<0>(scales, x, count, group, top);
}

template <class Real>
LLMZ_INLINE void encode_row(uint8_t* q, const Real* x, const bf16* scales, const uint32_t* random, int64_t count,
                            int64_t group, Real half) {
  group == 32 ? encode_loop<32>(q, x, scales, random, count, group, half)
              : encode_loop<0>(q, x, scales, random, count, group, half);
}

template <class Real>
LLMZ_INLINE void decode_row(Real* x, const uint8_t* q, const bf16* scales, int64_t count, int64_t group, Real centre) {
  group == 32 ? decode_loop<32>(x, q, scales, count, group, centre)
              : decode_loop<0>(x, q, scales, count, group, centre);
}

/// Two numbers a byte, the even element low. `q` has room for one more than an odd count.
LLMZ_INLINE void pack_row(uint8_t* __restrict codes, uint8_t* __restrict q, int64_t count) {
  if (count % 2 != 0) q[count] = 0;
  for (int64_t i = 0; i < (count + 1) / 2; ++i) {
    codes[i] = static_cast<uint8_t>(q[2 * i] | static_cast<uint8_t>(q[2 * i + 1] << 4));
  }
}
LLMZ_INLINE void unpack_row(uint8_t* __restrict q, const uint8_t* __restrict codes, int64_t count) {
  for (int64_t i = 0; i < (count + 1) / 2; ++i) {
    q[2 * i] = codes[i] & 15;
    q[2 * i + 1] = static_cast<uint8_t>(codes[i] >> 4);
  }
}

/// How rows of `width` elements fall into chunks and groups.
struct Layout {
  int64_t width, group, rotate;
  int bits;
  bool whole;  ///< every chunk begins where a group begins, and no group goes on into the next chunk

  Layout(const QuantFormat& f, int64_t row_width)
      : width(row_width), group(f.group == 0 ? row_width : f.group), rotate(f.rotate), bits(f.bits) {
    whole = width <= kChunk || kChunk % group == 0;
  }
  float half() const { return static_cast<float>(1 << (bits - 1)); }
  int64_t code_offset(int64_t column) const { return bits == 8 ? column : column / 2; }

  /// Calls f(group number, offset in the chunk, elements) for pieces of a chunk that lie in one group, or once for all
  /// of a chunk of whole groups.
  template <class F>
  void for_pieces(const Chunk& c, F&& f) const {
    if (whole) return f(c.column / group, int64_t{0}, c.count);
    for (int64_t i = 0; i < c.count;) {
      const int64_t g = (c.column + i) / group;
      const int64_t n = std::min(c.count - i, (g + 1) * group - c.column - i);
      f(g, i, n);
      i += n;
    }
  }
};

/// Makes codes of rows, on one thread.
template <class Real>
class Quantizer {
 public:
  Quantizer(const Tensor& x, const Layout& layout, const float* signs, const RandomStream* rounding)
      : x_(x), layout_(layout), signs_(signs), rounding_(rounding) {}

  void row(uint8_t* codes, bf16* scales, int64_t t) {
    if (layout_.whole) {
      for_chunks_of_row(t, layout_.width, [&](const Chunk& c) {
        const Real* values = read(c);
        make_scales(scales, values, c);
        encode(codes, scales, values, c);
      });
    } else {  // a group's scale is known when its last chunk was seen
      for_chunks_of_row(t, layout_.width, [&](const Chunk& c) { make_scales(scales, read(c), c); });
      for_chunks_of_row(t, layout_.width, [&](const Chunk& c) { encode(codes, scales, read(c), c); });
    }
  }

 private:
  const Real* read(const Chunk& c) {
    const Real* values = x_.read(c);
    if (layout_.rotate == 0) return values;
    std::copy_n(values, c.count, rotated_);
    hadamard_rotate(rotated_, scratch_, signs_ + c.column, c.count, layout_.rotate);
    return rotated_;
  }

  void make_scales(bf16* scales, const Real* values, const Chunk& c) {
    const float top = layout_.half() - 0.5f;
    layout_.for_pieces(c, [&](int64_t g, int64_t offset, int64_t n) {
      const bf16 before = scales[g];
      simd<scales_row<Real>, Real>(scales + g, values + offset, n, layout_.group, top);
      const bool goes_on = !layout_.whole && c.column + offset > g * layout_.group;
      if (goes_on) scales[g].bits = std::max(scales[g].bits, before.bits);  // magnitudes' bits are in order
    });
  }

  void encode(uint8_t* codes, const bf16* scales, const Real* values, const Chunk& c) {
    const uint32_t* random = nullptr;
    if (rounding_ != nullptr) {
      random = random_bits(random_, *rounding_, static_cast<uint64_t>(c.row * layout_.width + c.column), c.count);
    }
    uint8_t* const to = codes + layout_.code_offset(c.column);
    uint8_t* const q = layout_.bits == 8 ? to : q_;
    layout_.for_pieces(c, [&](int64_t g, int64_t offset, int64_t n) {
      simd<encode_row<Real>, Real>(q + offset, values + offset, scales + g,
                                   random == nullptr ? random : random + offset, n, layout_.group,
                                   static_cast<Real>(layout_.half()));
    });
    if (layout_.bits == 4) simd<pack_row>(to, q_, c.count);
  }

  Operand<Real> x_;
  const Layout& layout_;
  const float* signs_;
  const RandomStream* rounding_;  ///< null: to nearest
  alignas(64) Real rotated_[kChunk], scratch_[kChunk];
  alignas(64) uint32_t random_[kRandomWords];
  alignas(64) uint8_t q_[kChunk];
};

/// Makes rows of codes, on one thread.
template <class Real>
class Dequantizer {
 public:
  Dequantizer(const Tensor& x, const Layout& layout, const float* signs) : x_(x), layout_(layout), signs_(signs) {}

  void row(const uint8_t* codes, const bf16* scales, int64_t t) {
    const Real centre = static_cast<Real>(layout_.half() - 0.5f);
    for_chunks_of_row(t, layout_.width, [&](const Chunk& c) {
      const uint8_t* q = codes + layout_.code_offset(c.column);
      if (layout_.bits == 4) {
        simd<unpack_row>(q_, q, c.count);
        q = q_;
      }
      Real* const values = x_.write(c);
      layout_.for_pieces(c, [&](int64_t g, int64_t offset, int64_t n) {
        simd<decode_row<Real>, Real>(values + offset, q + offset, scales + g, n, layout_.group, centre);
      });
      if (layout_.rotate > 0) hadamard_unrotate(values, scratch_, signs_ + c.column, c.count, layout_.rotate);
      x_.commit(c);
    });
  }

 private:
  Operand<Real> x_;
  const Layout& layout_;
  const float* signs_;
  alignas(64) Real scratch_[kChunk];
  alignas(64) uint8_t q_[kChunk];
};

const float* fill_signs(const Tensor& workspace, const RandomStream& signs) {
  if (!workspace.present()) return nullptr;
  auto* const s = workspace.as<float>();
  for (int64_t i = 0; i < workspace.numel(); ++i) s[i] = signs.sign(static_cast<uint64_t>(i));
  return s;
}

}  // namespace

void quantize(Tensor codes, Tensor scales, Tensor x, const QuantFormat& format, const RandomStream& signs,
              const RandomStream& rounding, Tensor workspace) {
  const Layout layout(format, x.dim(1));
  const float* const sign = fill_signs(workspace, signs);
  with_compute_type(x.dtype, [&]<class Real>(Real) {
#pragma omp parallel if (x.numel() > kParallelElements)
    {
      Quantizer<Real> quantizer(x, layout, sign, format.stochastic ? &rounding : nullptr);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < x.dim(0); ++t) {
        quantizer.row(codes.as<uint8_t>() + t * codes.stride(0), scales.as<bf16>() + t * scales.stride(0), t);
      }
    }
  });
}

void dequantize(Tensor x, Tensor codes, Tensor scales, const QuantFormat& format, const RandomStream& signs,
                Tensor workspace) {
  const Layout layout(format, x.dim(1));
  const float* const sign = fill_signs(workspace, signs);
  with_compute_type(x.dtype, [&]<class Real>(Real) {
#pragma omp parallel if (x.numel() > kParallelElements)
    {
      Dequantizer<Real> dequantizer(x, layout, sign);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < x.dim(0); ++t) {
        dequantizer.row(codes.as<uint8_t>() + t * codes.stride(0), scales.as<bf16>() + t * scales.stride(0), t);
      }
    }
  });
}

}  // namespace llmz::cpu
