#include <dnnl.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <unordered_map>
#include <utility>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

using Matrix = dnnl::memory::desc;

/// One of oneDNN's products: operands with the layout that they are stored in, and what is done to its sums.
struct Primitive {
  Matrix a, b, c;
  Matrix bias = {};  ///< [1,n], with `add_bias`
  bool add_bias = false, accumulate = false, pack_b = false;
  float alpha = 1.0f;
};

Matrix matrix(const Tensor& t, bool transpose) {
  using Dims = dnnl::memory::dims;
  const Dims stored = {t.dim(0), t.dim(1)}, strides = {t.stride(0), 1};
  const auto type = t.dtype == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  if (!transpose) return {stored, type, strides};
  return {{stored[1], stored[0]}, type, {strides[1], strides[0]}};
}

/// alpha, then the bias, then C: each is one step over the fp32 sums, before they are rounded to C's type.
dnnl::primitive_attr attributes(const Primitive& p) {
  dnnl::post_ops steps;
#if DNNL_VERSION_MAJOR >= 3
  if (p.alpha != 1.0f) steps.append_eltwise(dnnl::algorithm::eltwise_linear, p.alpha, 0.0f);
#else
  if (p.alpha != 1.0f) steps.append_eltwise(1.0f, dnnl::algorithm::eltwise_linear, p.alpha, 0.0f);
#endif
  if (p.add_bias) steps.append_binary(dnnl::algorithm::binary_add, p.bias);
  if (p.accumulate) steps.append_sum(1.0f);
  dnnl::primitive_attr all;
  all.set_post_ops(steps);
  return all;
}

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const Primitive& p) {
  const Matrix b = p.pack_b ? Matrix(p.b.dims(), p.b.data_type(), dnnl::memory::format_tag::any) : p.b;
#if DNNL_VERSION_MAJOR >= 3
  return {engine, p.a, b, p.c, attributes(p)};
#else
  return {dnnl::matmul::desc(p.a, b, p.c), attributes(p), engine};
#endif
}

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

Primitive primitive_of(const MatmulArgs& args, bool pack_b) {
  Primitive p{.a = matrix(args.a, args.transpose_a), .b = matrix(args.b, args.transpose_b), .c = matrix(args.c, false)};
  p.add_bias = args.bias.present();
  if (p.add_bias) p.bias = matrix(args.bias.reshape({1, args.bias.dim(0)}), false);
  p.accumulate = args.accumulate;
  p.pack_b = pack_b;
  p.alpha = static_cast<float>(args.alpha);
  return p;
}

/// oneDNN's matmul primitive. Making it anew takes a few microseconds: oneDNN keeps the generated code by itself.
/// `packed`: room for B in the order in which the kernel reads it, or null to leave B as it lies.
void run_primitive(const MatmulArgs& args, float* packed = nullptr) {
  const dnnl::engine& engine = cpu_engine();
  dnnl::stream stream(engine);
  const Primitive p = primitive_of(args, packed != nullptr);
  const dnnl::matmul::primitive_desc product = describe(engine, p);
  dnnl::memory b(p.b, engine, args.b.data);
  if (p.pack_b) {
    const dnnl::memory to(product.weights_desc(), engine, packed);
    dnnl::reorder(b, to).execute(stream, {{DNNL_ARG_FROM, b}, {DNNL_ARG_TO, to}});
    b = to;
  }
  std::unordered_map<int, dnnl::memory> memories = {
      {DNNL_ARG_SRC, {p.a, engine, args.a.data}}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, {p.c, engine, args.c.data}}};
  if (p.add_bias) {
    const int step = p.alpha != 1.0f ? 1 : 0;
    memories[DNNL_ARG_ATTR_MULTIPLE_POST_OP(step) | DNNL_ARG_SRC_1] = {p.bias, engine, args.bias.data};
  }
  dnnl::matmul(product).execute(stream, memories);
  stream.wait();
}

/// Of fp32 matrices. Which of oneDNN's two ways is quicker, by shape alone: sgemm, but for narrow large products with a
/// transposed B, where it reaches 60 to 90 % of the primitive's speed.
void run_f32(const MatmulArgs& args) {
  constexpr int64_t kLarge = int64_t{1} << 24, kNarrow = 512;
  const int64_t m = args.c.dim(0), n = args.c.dim(1), k = args.a.dim(args.transpose_a ? 0 : 1);
  const int64_t narrow = std::min(m, n);
  const bool large = narrow >= 64 && m * n * k >= kLarge;
  const auto alpha = static_cast<float>(args.alpha);
  if (args.transpose_b && alpha == 1.0f && large && narrow <= kNarrow) return run_primitive(args);
  const auto status = dnnl_sgemm(args.transpose_a ? 'T' : 'N', args.transpose_b ? 'T' : 'N', m, n, k, alpha,
                                 args.a.as<float>(), args.a.stride(0), args.b.as<float>(), args.b.stride(0),
                                 args.accumulate ? 1.0f : 0.0f, args.c.as<float>(), args.c.stride(0));
  check(status == dnnl_success, "matmul: oneDNN's sgemm of [{}, {}, {}] failed with status {}", m, n, k,
        static_cast<int>(status));
}

/// to = from, both of one shape [rows, columns], whatever their types and pitches.
void convert_rows(const Tensor& to, const Tensor& from) {
  const auto row = [](const Tensor& t, int64_t r) {
    return static_cast<std::byte*>(t.data) + r * t.stride(0) * static_cast<int64_t>(dtype_bytes(t.dtype));
  };
  const int64_t rows = to.dim(0), columns = to.dim(1);
#pragma omp parallel for if (rows * columns > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) convert(row(to, r), to.dtype, row(from, r), from.dtype, columns);
}

/// Hands out dense copies from the workspace, each from a cache line's beginning.
class Copies {
 public:
  explicit Copies(float* workspace) : next_(workspace) {}

  static int64_t elements(int64_t bytes) {
    constexpr int64_t kLine = 64;
    return ceil_div(bytes, kLine) * kLine / static_cast<int64_t>(sizeof(float));
  }
  static int64_t elements(const Tensor& t, DType type) {
    return elements(t.numel() * static_cast<int64_t>(dtype_bytes(type)));
  }
  Tensor make(const Tensor& t, DType type, bool fill) {
    const Tensor copy(std::exchange(next_, next_ + elements(t, type)), type, t.shape, t.device);
    if (fill) convert_rows(copy, t);
    return copy;
  }
  /// All that is left.
  float* rest() const { return next_; }

 private:
  float* next_;
};

/// Whether oneDNN's bf16 kernels compute this product. Theirs are dense matrices only, so the rest is copied.
bool is_native(const MatmulArgs& args) {
  return args.a.dtype == DType::bf16 && args.b.dtype == DType::bf16 && multiplies_bf16();
}
bool is_dense(const Tensor& t) { return t.dim(0) == 1 || t.stride(0) == t.dim(1); }

/// Whether B is packed once for the whole product. Left to itself each thread of oneDNN 2.6 packs B anew for every
/// block of rows; with fewer rows than these the packing costs more than that.
bool packs_b(const MatmulArgs& args) {
  constexpr int64_t kRows = 768, kNarrowest = 64;
  const int64_t n = args.c.dim(1), k = args.a.dim(args.transpose_a ? 0 : 1);
  return is_native(args) && args.c.dim(0) >= kRows && n >= kNarrowest && k >= kNarrowest;
}

/// What `t` is copied to before the product, and from behind it; its own type where it is not copied.
struct Wanted {
  DType type;
  bool copied;
};
Wanted wanted(const MatmulArgs& args, const Tensor& t) {
  if (is_native(args)) return {t.dtype, !is_dense(t)};
  return {DType::f32, t.dtype != DType::f32};
}

/// Elements of the workspace that B takes when it is packed.
int64_t packed_elements(const MatmulArgs& args) {
  MatmulArgs dense = args;  // as the kernel will get them
  for (Tensor* t : {&dense.a, &dense.c}) *t = Tensor(nullptr, t->dtype, t->shape, t->device);
  int64_t elements = 0;
  for (const bool accumulate : {false, true}) {  // a plan holds for either
    dense.accumulate = accumulate;
    const auto bytes = describe(cpu_engine(), primitive_of(dense, true)).weights_desc().get_size();
    elements = std::max(elements, Copies::elements(static_cast<int64_t>(bytes)));
  }
  return elements;
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

/// In bf16 or in fp32, whichever the operands and the processor are made for.
void matmul_floats(const MatmulArgs& args, float* workspace) {
  Copies copies(workspace);
  MatmulArgs product = args;
  const auto place = [&](Tensor& t, bool fill) {
    const Wanted to = wanted(args, t);
    if (to.copied) t = copies.make(t, to.type, fill);
  };
  const bool native = is_native(args);
  if (!native) product.bias = {};
  try {
    place(product.a, true);
    place(product.c, args.accumulate);
    float* const packed = packs_b(args) ? copies.rest() : nullptr;
    if (packed == nullptr) place(product.b, true);
    native ? run_primitive(product, packed) : run_f32(product);
  } catch (const dnnl::error& e) {
    fail("matmul: oneDNN cannot multiply {} by {}: {}", args.a.shape.str(), args.b.shape.str(), e.what());
  }
  if (args.bias.present() && !native) add_bias_as<float>(product.c, args.bias);
  if (product.c.data != args.c.data) convert_rows(args.c, product.c);
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

bool multiplies_bf16() {
  constexpr int kNeeded = dnnl_cpu_isa_avx512_core_bf16;  // a set of bits, of which a newer processor has more
  static const bool native = (dnnl_get_effective_cpu_isa() & kNeeded) == kNeeded;
  return native;
}

int64_t matmul_workspace(const MatmulArgs& args) {
  if (args.c.dtype == DType::f64) return 0;
  const auto copied = [&](const Tensor& t) {
    const Wanted to = wanted(args, t);
    return to.copied ? Copies::elements(t, to.type) : 0;
  };
  return copied(args.a) + copied(args.c) + (packs_b(args) ? packed_elements(args) : copied(args.b));
}

void matmul(const MatmulArgs& args, Tensor workspace) {
  if (args.c.numel() == 0) return;
  if (args.a.numel() == 0) {  // an empty sum
    if (!args.accumulate) fill(args.c, 0.0f);
    if (args.bias.present()) add_bias(args.c, args.bias);
    return;
  }
  if (args.c.dtype == DType::f64) return matmul_f64(args);
  matmul_floats(args, workspace.present() ? workspace.as<float>() : nullptr);
}

void add_bias(Tensor y, Tensor bias) {
  with_compute_type(y.dtype, [&](auto real) { add_bias_as<decltype(real)>(y, bias); });
}

void bias_backward(Tensor dbias, Tensor dy) {
  with_compute_type(dy.dtype, [&](auto real) { bias_backward_as<decltype(real)>(dbias, dy); });
}

}  // namespace llmz::cpu
