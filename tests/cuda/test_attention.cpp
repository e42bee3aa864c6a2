#include "llmz/ops/attention.h"

#include "cuda/twins.h"
#include "kernels/cuda/attention_cudnn.h"
#include "llmz/core/version.h"
#include "ops/attention_reference.h"

// Attention's twins at head widths that the tensor cores take as they are (multiples of 16), padded (multiples of 8)
// and not at all, at lengths around the kernels' tiles, with and without keys before the first query. In bf16 also with
// cuDNN where the build has it; what that refuses runs on llmz's own kernels once more.

namespace llmz::test {
namespace {

using attention::Sizes;
using Whose = Gpu::Attention;

bool have_cudnn() {
  for (const BuildComponent& c : build_info().components) {
    if (c.name == "CUDNN") return c.on;
  }
  return false;
}

std::vector<Whose> implementations(DType type) {
  if (type == DType::bf16 && have_cudnn()) return {Whose::own, Whose::automatic};
  return {Whose::own};
}

void choose(Exec& e, Whose whose) {
  if (e.memory.gpu() != nullptr) e.memory.gpu()->set_attention(whose);
}

void forward(Exec& e, const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
             const ops::AttentionMask& mask = {}) {
  ops::attention_forward(e, out, lse, q, k, v, mask);
}

/// Arguments of both passes. Scores have standard deviation `spread`.
struct Problem {
  Sizes sizes;
  DType type;
  HostTensor q, k, v, dout, out, lse, dq, dk, dv;
  Problem(const Sizes& s, DType t, unsigned seed, int64_t gap = 0, double spread = 1.0) : sizes(s), type(t) {
    q = HostTensor::random(type, s.q(), seed, spread, gap);
    k = HostTensor::random(type, s.k(), seed + 1000003, 1.0, gap);
    v = HostTensor::random(type, s.k(), seed + 2000003, 1.0, gap);
    dout = HostTensor::random(type, s.q(), seed + 3000017, 1.0, gap);
    out = dq = HostTensor(type, s.q(), gap);
    dk = dv = HostTensor(type, s.k(), gap);
    lse = HostTensor(DType::f32, s.lse());
  }
};

/// Errors of out, dq, dk and dv. Both p and ds are left factors of products, rounded to bf16 there: each term of a sum
/// is off by up to 2^-8 of itself, 2^-9.3 in the mean, independently of the others, so a sum is off by 2^-9.3·√Σ term².
/// The first key's dv has p = 1 in it and the last key's p = 1/length, so that this is many times the mean for some
/// elements. What the test allows is, as elsewhere, `relative` of that size. And ds = p·(dout·v − delta) is a
/// difference of numbers up to |dout|·|v|, each off by some f32 roundings of those, however small it is itself.
struct TermSizes {
  std::vector<double> out, dq, dk, dv;
  explicit TermSizes(const Problem& x);
};

double dot(const HostTensor& a, int64_t a_row, const HostTensor& b, int64_t b_row, int64_t width) {
  double sum = 0;
  for (int64_t c = 0; c < width; ++c) sum += a.get(a_row + c) * b.get(b_row + c);
  return sum;
}

TermSizes::TermSizes(const Problem& x) {
  const Sizes& s = x.sizes;
  const int64_t width = s.width;
  const ops::AttentionMask mask = s.mask({});
  const double relative = tolerance(x.type), scale = 1 / std::sqrt(static_cast<double>(width));
  out = dq = std::vector<double>(static_cast<size_t>(s.q().numel()));
  dk = dv = std::vector<double>(static_cast<size_t>(s.k().numel()));
  const auto add = [&](std::vector<double>& to, int64_t to_row, double factor, const HostTensor& from, int64_t row) {
    for (int64_t c = 0; c < width; ++c) {
      const double term = factor * from.get(row + c);
      to[static_cast<size_t>(to_row + c)] += term * term;
    }
  };
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t h = 0; h < s.heads; ++h) {
      for (int64_t i = 0; i < s.queries; ++i) {
        const int64_t row = ((b * s.queries + i) * s.heads + h) * width;
        const double lse = x.lse.get((b * s.heads + h) * s.queries + i), delta = dot(x.dout, row, x.out, row, width);
        const int64_t position = s.keys - s.queries + i, end = mask.end(position, s.length(b));
        for (int64_t j = mask.begin(position); j < end; ++j) {
          const int64_t key = ((b * s.keys + j) * s.kv_heads + h / (s.heads / s.kv_heads)) * width;
          const double p = std::exp(scale * dot(x.q, row, x.k, key, width) - lse);
          const double largest = std::sqrt(dot(x.dout, row, x.dout, row, width) * dot(x.v, key, x.v, key, width));
          const double difference = dot(x.dout, row, x.v, key, width) - delta;
          const double ds = scale * p * std::hypot(relative * difference, kF32 * largest);
          add(out, row, relative * p, x.v, key);
          add(dq, row, ds, x.k, key);
          add(dk, key, ds, x.q, row);
          add(dv, key, relative * p, x.dout, row);
        }
      }
    }
  }
  for (auto* sizes : {&out, &dq, &dk, &dv}) {
    for (double& size : *sizes) size = std::sqrt(size);
  }
}

/// Forward, then backward with what forward gave, with and without `out`.
void compare(const Sizes& s, DType type, Whose whose, int64_t gap, double spread) {
  const unsigned seed = fresh_seed();
  INFO((whose == Whose::own ? "own " : "cuDNN ")
       << dtype_name(type) << " B" << s.batch << " Sq" << s.queries << " Skv" << s.keys << " heads " << s.heads << "/"
       << s.kv_heads << " D" << s.width << (s.causal ? " causal" : " full") << " window " << s.window
       << (s.padded ? " padded" : "") << " gap " << gap << " spread " << spread << " seed " << seed);
  Problem x(s, type, seed, gap, spread);
  HostTensor out = x.out, lse = x.lse, lengths = s.lengths();
  run_op([&](Exec& e) {
    forward(e, x.out.tensor(), x.lse.tensor(), x.q.tensor(), x.k.tensor(), x.v.tensor(), s.mask(lengths.tensor()));
  });
  const TermSizes errors(x);
  compare_twins({&out, &lse, &x.q, &x.k, &x.v, &lengths}, tolerance(type),
                [&](Exec& e, const Tensors& t) {
                  choose(e, whose);
                  forward(e, t[0], t[1], t[2], t[3], t[4], s.mask(t[5]));
                },
                {errors.out});
  require_close(lse, x.lse.values(), kF32 * size_of(lse), kF32);  // f32 whatever the type of q, k and v
  const Errors of_gradients{errors.dq, errors.dk, errors.dv};
  compare_twins(
      {&x.dq, &x.dk, &x.dv, &x.dout, &out, &lse, &x.q, &x.k, &x.v, &lengths}, tolerance(type),
      [&](Exec& e, const Tensors& t) {
        choose(e, whose);
        ops::attention_backward(e, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], s.mask(t[9]));
      },
      of_gradients);
  if (whose != Whose::own) return;  // without `out` it is never cuDNN
  for (HostTensor* t : {&x.dq, &x.dk, &x.dv}) t->assign(std::vector<double>(static_cast<size_t>(t->size()), 1e9));
  compare_twins(
      {&x.dq, &x.dk, &x.dv, &x.dout, &lse, &x.q, &x.k, &x.v, &lengths}, tolerance(type),
      [&](Exec& e, const Tensors& t) {
        ops::attention_backward(e, t[0], t[1], t[2], t[3], Tensor(), t[4], t[5], t[6], t[7], s.mask(t[8]));
      },
      of_gradients);
}

void compare(const Sizes& s, DType type, int64_t gap = 0, double spread = 1.0) {
  for (Whose whose : implementations(type)) compare(s, type, whose, gap, spread);
}

/// q, k and v as slices of one tensor [B,S,heads + 2·kv_heads,D], their gradients likewise: close to what separate
/// tensors give, and the same bits from llmz's own kernels. cuDNN may choose by strides.
void compare_slices(DType type, int64_t width, Whose whose) {
  constexpr int64_t kHeads = 4, kKvHeads = 2, kAll = kHeads + 2 * kKvHeads, kLength = 70;
  INFO((whose == Whose::own ? "own " : "cuDNN ") << dtype_name(type) << " D" << width);
  Problem x({2, kLength, kLength, kHeads, kKvHeads, width}, type, fresh_seed());
  run_on_gpu({&x.dq, &x.dk, &x.dv, &x.dout, &x.out, &x.lse, &x.q, &x.k, &x.v}, [&](Exec& e, const Tensors& t) {
    choose(e, whose);
    forward(e, t[4], t[5], t[6], t[7], t[8]);
    ops::attention_backward(e, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8]);
  });
  HostTensor qkv(type, {2, kLength, kAll, width}), gradient = qkv, out(type, x.sizes.q()), lse = x.lse;
  const auto each = [&](int64_t first, int64_t heads, auto&& f) {
    for (int64_t row = 0; row < 2 * kLength; ++row) {
      for (int64_t i = 0; i < heads * width; ++i) f((row * kAll + first) * width + i, row * heads * width + i);
    }
  };
  each(0, kHeads, [&](int64_t to, int64_t from) { qkv.set(to, x.q.get(from)); });
  each(kHeads, kKvHeads, [&](int64_t to, int64_t from) { qkv.set(to, x.k.get(from)); });
  each(kHeads + kKvHeads, kKvHeads, [&](int64_t to, int64_t from) { qkv.set(to, x.v.get(from)); });
  const auto q = [](const Tensor& t) { return t.slice(2, 0, kHeads); };
  const auto k = [](const Tensor& t) { return t.slice(2, kHeads, kKvHeads); };
  const auto v = [](const Tensor& t) { return t.slice(2, kHeads + kKvHeads, kKvHeads); };
  run_on_gpu({&gradient, &x.dout, &out, &lse, &qkv}, [&](Exec& e, const Tensors& t) {
    choose(e, whose);
    forward(e, t[2], t[3], q(t[4]), k(t[4]), v(t[4]));
    ops::attention_backward(e, q(t[0]), k(t[0]), v(t[0]), t[1], t[2], t[3], q(t[4]), k(t[4]), v(t[4]));
  });
  const auto require_same = [&](double got, double want, double size) {
    REQUIRE(std::fabs(got - want) <= (whose == Whose::own ? 0.0 : kBf16 * (std::fabs(want) + size)));
  };
  const double o = size_of(x.out), l = size_of(x.lse), dq = size_of(x.dq), dk = size_of(x.dk), dv = size_of(x.dv);
  for (int64_t i = 0; i < out.size(); ++i) require_same(out.get(i), x.out.get(i), o);
  for (int64_t i = 0; i < lse.size(); ++i) require_same(lse.get(i), x.lse.get(i), l);
  each(0, kHeads, [&](int64_t at, int64_t from) { require_same(gradient.get(at), x.dq.get(from), dq); });
  each(kHeads, kKvHeads, [&](int64_t at, int64_t from) { require_same(gradient.get(at), x.dk.get(from), dk); });
  each(kHeads + kKvHeads, kKvHeads,
       [&](int64_t at, int64_t from) { require_same(gradient.get(at), x.dv.get(from), dv); });
}

}  // namespace

TEST_CASE("attention: CUDA twins agree with the CPU's at every head width") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t width : {8, 16, 32, 33, 40, 48, 64, 80, 96, 112, 128, 200, 256})
      compare({1, 65, 70, 2, 1, width}, type);
  }
}

TEST_CASE("attention: CUDA twins agree with the CPU's at lengths around the tiles") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t width : {16, 80}) {
      for (int64_t length : {1, 7, 64, 65, 130}) compare({2, length, length, 2, 2, width}, type);
      compare({1, 0, 5, 2, 1, width}, type);
      compare({1, 1, 130, 2, 1, width}, type);
      compare({2, 7, 300, 2, 1, width}, type);
      compare({1, 64, 128, 1, 1, width}, type);
      compare({1, 260, 321, 1, 1, width}, type);
    }
  }
}

TEST_CASE("attention: CUDA twins agree with the CPU's where heads share keys and values") {
  for (DType type : {DType::f32, DType::bf16}) {
    compare({2, 65, 65, 6, 2, 16}, type);
    compare({1, 130, 200, 4, 1, 128}, type);
  }
}

// The scalar kernels' masks: blocks of 8 rows, tiles of 32 of the other side.
TEST_CASE("attention: CUDA twins agree with the CPU's with keys on both sides, windows and padding") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (bool causal : {true, false}) {
      for (int64_t window : {0, 1, 40, 64}) {
        for (bool padded : {false, true}) {
          if (causal && window == 0 && !padded) continue;
          compare({2, 70, 70, 2, 1, 16, causal, window, padded}, type);
          compare({3, 21, 107, 2, 1, 40, causal, window, padded}, type);
        }
      }
    }
  }
}

TEST_CASE("attention: CUDA twins agree with the CPU's with gaps between rows and with large scores") {
  for (DType type : {DType::f32, DType::bf16}) {
    compare({2, 65, 70, 2, 2, 32}, type, 8);  // rows stay aligned
    compare({2, 65, 70, 2, 2, 32}, type, 3);  // and here they do not
    compare({1, 130, 130, 1, 1, 64}, type, 0, 20.0);
  }
}

TEST_CASE("attention: cuDNN takes both passes of ordinary shapes") {
  if (!have_cudnn()) return;
  for (int64_t keys : {256, 384}) {
    Problem x({3, 256, keys, 4, 2, 64}, DType::bf16, fresh_seed());
    run_on_gpu({&x.dq, &x.dk, &x.dv, &x.dout, &x.out, &x.lse, &x.q, &x.k, &x.v}, [&](Exec& e, const Tensors& t) {
      choose(e, Whose::cudnn);
      forward(e, t[4], t[5], t[6], t[7], t[8]);
      ops::attention_backward(e, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8]);
      if (e.memory.gpu() != nullptr) CHECK(cuda::cudnn_attention_shapes(*e.memory.gpu()) == 2);
    });
  }
}

TEST_CASE("attention on a GPU names heads that are too wide") {
  HostTensor wide(DType::f32, {1, 1, 1, 257}), lse(DType::f32, {1, 1, 1});
  CHECK_THROWS_WITH(
      run_on_gpu({&wide, &lse}, [](Exec& e, const Tensors& t) { forward(e, t[0], t[1], t[0], t[0], t[0]); }),
      "attention_forward: q [1, 1, 1, 257] has heads wider than 256, the most there is a kernel for");
}

TEST_CASE("attention: CUDA twins give the same on slices of one tensor") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t width : {33, 40, 64}) {
      for (Whose whose : implementations(type)) compare_slices(type, width, whose);
    }
  }
}

}  // namespace llmz::test
