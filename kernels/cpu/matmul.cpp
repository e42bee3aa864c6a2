#include <dnnl.hpp>

#include <Eigen/Core>
#include <algorithm>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

/// C[m,n] = alpha·op(A)·op(B) (+ C): sizes, row pitches and pointers of a product in fp32.
struct Product {
  int64_t m, n, k;
  float *c, *a, *b;
  int64_t c_pitch, a_pitch, b_pitch;
  bool transpose_a, transpose_b, accumulate;
  float alpha;
};

dnnl::memory::desc matrix_desc(int64_t rows, int64_t columns, int64_t pitch, bool transpose) {
  using Dims = dnnl::memory::dims;
  return {{rows, columns}, dnnl::memory::data_type::f32, transpose ? Dims{1, pitch} : Dims{pitch, 1}};
}

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const dnnl::memory::desc& a,
                                      const dnnl::memory::desc& b, const dnnl::memory::desc& c, bool accumulate) {
  dnnl::primitive_attr attributes;
  if (accumulate) {
    dnnl::post_ops post_ops;
    post_ops.append_sum(1.0f);
    attributes.set_post_ops(post_ops);
  }
#if DNNL_VERSION_MAJOR >= 3
  return {engine, a, b, c, attributes};
#else
  return {dnnl::matmul::desc(a, b, c), attributes, engine};
#endif
}

/// oneDNN's matmul primitive. Making it anew takes a few microseconds: oneDNN keeps the generated code by itself.
void run_primitive(const Product& p) {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto a = matrix_desc(p.m, p.k, p.a_pitch, p.transpose_a);
  const auto b = matrix_desc(p.k, p.n, p.b_pitch, p.transpose_b);
  const auto c = matrix_desc(p.m, p.n, p.c_pitch, false);
  const dnnl::matmul product(describe(engine, a, b, c, p.accumulate));
  product.execute(stream, {{DNNL_ARG_SRC, dnnl::memory(a, engine, p.a)},
                           {DNNL_ARG_WEIGHTS, dnnl::memory(b, engine, p.b)},
                           {DNNL_ARG_DST, dnnl::memory(c, engine, p.c)}});
  stream.wait();
}

/// Which of oneDNN's two ways is quicker, by shape alone: sgemm, but for narrow large products with a transposed B,
/// where it reaches 60 to 90 % of the primitive's speed.
void run(const Product& p) {
  constexpr int64_t kLarge = int64_t{1} << 24, kNarrow = 512;
  const int64_t narrow = std::min(p.m, p.n);
  const bool large = narrow >= 64 && p.m * p.n * p.k >= kLarge;
  if (p.transpose_b && p.alpha == 1.0f && large && narrow <= kNarrow) return run_primitive(p);
  const auto status = dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n, p.k, p.alpha, p.a,
                                 p.a_pitch, p.b, p.b_pitch, p.accumulate ? 1.0f : 0.0f, p.c, p.c_pitch);
  check(status == dnnl_success, "matmul: oneDNN's sgemm of [{}, {}, {}] failed with status {}", p.m, p.n, p.k,
        static_cast<int>(status));
}

void convert_rows(void* to, DType to_type, int64_t to_pitch, const void* from, DType from_type, int64_t from_pitch,
                  int64_t rows, int64_t columns) {
#pragma omp parallel for if (rows * columns > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    convert(static_cast<std::byte*>(to) + r * to_pitch * static_cast<int64_t>(dtype_bytes(to_type)), to_type,
            static_cast<const std::byte*>(from) + r * from_pitch * static_cast<int64_t>(dtype_bytes(from_type)),
            from_type, columns);
  }
}

/// The fp32 form of an operand: itself, or a dense copy at `workspace`, which is moved past it.
float* as_f32(const Tensor& t, int64_t& pitch, float*& workspace, bool fill) {
  pitch = t.stride(0);
  if (t.dtype == DType::f32) return t.as<float>();
  float* copy = workspace;
  workspace += t.numel();
  pitch = t.dim(1);
  if (fill) convert_rows(copy, DType::f32, pitch, t.data, t.dtype, t.stride(0), t.dim(0), t.dim(1));
  return copy;
}

template <class Real>
LLMZ_INLINE void add_loop(Real* sum, const Real* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += x[i];
}

template <class Real>
void add_bias_as(const Tensor& y, const Tensor& bias) {
#pragma omp parallel if (y.numel() > kParallelElements)
  {
    Operand<Real> sum(y), addend(bias);
#pragma omp for schedule(static)
    for (int64_t t = 0; t < y.dim(0); ++t) {
      for_chunks_of_row(t, y.dim(1), [&](const Chunk& c) {
        simd<add_loop<Real>>(sum.modify(c), addend.read({0, c.column, c.count}), c.count);
        sum.commit(c);
      });
    }
  }
}

void matmul_f32(const MatmulArgs& args, float* workspace) {
  Product p{};
  p.m = args.c.dim(0);
  p.n = args.c.dim(1);
  p.k = args.a.dim(args.transpose_a ? 0 : 1);
  p.transpose_a = args.transpose_a;
  p.transpose_b = args.transpose_b;
  p.accumulate = args.accumulate;
  p.alpha = static_cast<float>(args.alpha);
  p.a = as_f32(args.a, p.a_pitch, workspace, true);
  p.b = as_f32(args.b, p.b_pitch, workspace, true);
  p.c = as_f32(args.c, p.c_pitch, workspace, args.accumulate);
  try {
    run(p);
  } catch (const dnnl::error& e) {
    fail("matmul: oneDNN cannot multiply {} by {}: {}", args.a.shape.str(), args.b.shape.str(), e.what());
  }
  if (args.bias.present()) {
    Tensor c(p.c, DType::f32, args.c.shape, args.c.device);
    c.strides[0] = p.c_pitch;
    add_bias_as<float>(c, args.bias);
  }
  if (args.c.dtype == DType::bf16) {
    convert_rows(args.c.data, DType::bf16, args.c.stride(0), p.c, DType::f32, p.c_pitch, p.m, p.n);
  }
}

void matmul_f64(const MatmulArgs& args) {
  using Stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  using Map = Eigen::Map<Eigen::MatrixXd, 0, Stride>;
  const auto map = [](const Tensor& t, bool transpose) {  // MatrixXd is column-major: (outer, inner) = (column, row)
    const int64_t pitch = t.stride(0);
    return transpose ? Map(t.as<double>(), t.dim(1), t.dim(0), Stride(pitch, 1))
                     : Map(t.as<double>(), t.dim(0), t.dim(1), Stride(1, pitch));
  };
  Map c = map(args.c, false);
  if (!args.accumulate) c.setZero();
  c += args.alpha * (map(args.a, args.transpose_a) * map(args.b, args.transpose_b));
  if (args.bias.present()) add_bias_as<double>(args.c, args.bias);
}

/// One thread sums a strip of columns; `kRows` rows are summed before they join the total, so that rounding does not
/// pile up with T.
template <class Real>
void bias_backward_as(const Tensor& dbias, const Tensor& dy) {
  constexpr int64_t kColumns = 128, kRows = 32;
  const int64_t rows = dy.dim(0), width = dy.dim(1);
#pragma omp parallel if (dy.numel() > kParallelElements)
  {
    Operand<Real> sum(dbias), addend(dy);
#pragma omp for schedule(static)
    for (int64_t column = 0; column < width; column += kColumns) {
      const int64_t count = std::min(kColumns, width - column);
      Real total[kColumns] = {};
      for (int64_t first = 0; first < rows; first += kRows) {
        Real block[kColumns] = {};
        for (int64_t t = first; t < std::min(first + kRows, rows); ++t) {
          simd<add_loop<Real>>(block, addend.read({t, column, count}), count);
        }
        simd<add_loop<Real>>(total, block, count);
      }
      const Chunk strip{0, column, count};
      simd<add_loop<Real>>(sum.modify(strip), total, count);
      sum.commit(strip);
    }
  }
}

}  // namespace

int64_t matmul_workspace(const MatmulArgs& args) {
  int64_t elements = 0;
  for (const Tensor* t : {&args.a, &args.b, &args.c}) elements += t->dtype == DType::bf16 ? t->numel() : 0;
  return elements;
}

void matmul(const MatmulArgs& args, Tensor workspace) {
  if (args.c.numel() == 0) return;
  if (args.a.numel() == 0) {  // an empty sum
    if (!args.accumulate) fill(args.c, 0.0f);
    if (args.bias.present()) add_bias(args.c, args.bias);
    return;
  }
  if (args.c.dtype == DType::f64) return matmul_f64(args);
  matmul_f32(args, workspace.present() ? workspace.as<float>() : nullptr);
}

void add_bias(Tensor y, Tensor bias) {
  with_compute_type(y.dtype, [&](auto real) { add_bias_as<decltype(real)>(y, bias); });
}

void bias_backward(Tensor dbias, Tensor dy) {
  with_compute_type(dy.dtype, [&](auto real) { bias_backward_as<decltype(real)>(dbias, dy); });
}

}  // namespace llmz::cpu
