#include "llmz/ops/attention.h"

#include "cuda/twins.h"

// Attention's twins at head widths that the tensor cores take as they are (multiples of 16), padded (multiples of 8)
// and not at all, at lengths around the kernels' tiles, with and without keys before the first query.

namespace llmz::test {
namespace {

struct Sizes {
  int64_t batch, queries, keys, heads, kv_heads, width;
  Shape q() const { return {batch, queries, heads, width}; }
  Shape k() const { return {batch, keys, kv_heads, width}; }
  Shape lse() const { return {batch, heads, queries}; }
};

void forward(Exec& e, const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v) {
  ops::attention_forward(e, out, lse, q, k, v);
}

/// Forward, then backward with what forward gave, with and without `out`. Scores have standard deviation `spread`.
void compare(const Sizes& s, DType type, int64_t gap = 0, double spread = 1.0) {
  const unsigned seed = fresh_seed();
  INFO(dtype_name(type) << " B" << s.batch << " Sq" << s.queries << " Skv" << s.keys << " heads " << s.heads << "/"
                        << s.kv_heads << " D" << s.width << " gap " << gap << " spread " << spread << " seed " << seed);
  HostTensor q = HostTensor::random(type, s.q(), seed, spread, gap);
  HostTensor k = HostTensor::random(type, s.k(), seed + 1000003, 1.0, gap);
  HostTensor v = HostTensor::random(type, s.k(), seed + 2000003, 1.0, gap);
  HostTensor dout = HostTensor::random(type, s.q(), seed + 3000017, 1.0, gap);
  HostTensor out(type, s.q(), gap), lse(DType::f32, s.lse()), dq = out, dk(type, s.k(), gap), dv = dk, cpu_lse = lse;
  compare_twins({&out, &lse, &q, &k, &v}, tolerance(type),
                [](Exec& e, const Tensors& t) { forward(e, t[0], t[1], t[2], t[3], t[4]); });
  run_op([&](Exec& e) { forward(e, HostTensor(out).tensor(), cpu_lse.tensor(), q.tensor(), k.tensor(), v.tensor()); });
  require_close(lse, cpu_lse.values(), kF32 * size_of(cpu_lse), kF32);  // f32 whatever the type of q, k and v
  compare_twins({&dq, &dk, &dv, &dout, &out, &lse, &q, &k, &v}, tolerance(type), [](Exec& e, const Tensors& t) {
    ops::attention_backward(e, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8]);
  });
  for (HostTensor* t : {&dq, &dk, &dv}) t->assign(std::vector<double>(static_cast<size_t>(t->size()), 1e9));
  compare_twins({&dq, &dk, &dv, &dout, &lse, &q, &k, &v}, tolerance(type), [](Exec& e, const Tensors& t) {
    ops::attention_backward(e, t[0], t[1], t[2], t[3], Tensor(), t[4], t[5], t[6], t[7]);
  });
}

}  // namespace

TEST_CASE("attention: CUDA twins agree with the CPU's at every head width") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t width : {8, 16, 32, 33, 40, 48, 64, 80, 96, 112, 128, 200, 256}) compare({1, 65, 70, 2, 1, width}, type);
  }
}

TEST_CASE("attention: CUDA twins agree with the CPU's at lengths around the tiles") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t width : {16, 80}) {
      for (int64_t length : {1, 7, 64, 65, 130}) compare({2, length, length, 2, 2, width}, type);
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

TEST_CASE("attention: CUDA twins agree with the CPU's with gaps between rows and with large scores") {
  for (DType type : {DType::f32, DType::bf16}) {
    compare({2, 65, 70, 2, 2, 32}, type, 8);  // rows stay aligned
    compare({2, 65, 70, 2, 2, 32}, type, 3);  // and here they do not
    compare({1, 130, 130, 1, 1, 64}, type, 0, 20.0);
  }
}

TEST_CASE("attention: CUDA twins agree with the CPU's on slices of one tensor") {
  constexpr int64_t kHeads = 4, kKvHeads = 2;
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t width : {40, 64}) {
      const unsigned seed = fresh_seed();
      INFO(dtype_name(type) << " D" << width << " seed " << seed);
      HostTensor qkv = HostTensor::random(type, {2, 70, kHeads + 2 * kKvHeads, width}, seed);
      HostTensor dout = HostTensor::random(type, {2, 70, kHeads, width}, seed + 1000003);
      HostTensor out(type, {2, 70, kHeads, width}), lse(DType::f32, {2, kHeads, 70}), gradient(type, qkv.shape());
      const auto q = [](const Tensor& t) { return t.slice(2, 0, kHeads); };
      const auto k = [](const Tensor& t) { return t.slice(2, kHeads, kKvHeads); };
      const auto v = [](const Tensor& t) { return t.slice(2, kHeads + kKvHeads, kKvHeads); };
      compare_twins({&out, &lse, &qkv}, tolerance(type),
                    [&](Exec& e, const Tensors& t) { forward(e, t[0], t[1], q(t[2]), k(t[2]), v(t[2])); });
      compare_twins({&gradient, &dout, &out, &lse, &qkv}, tolerance(type), [&](Exec& e, const Tensors& t) {
        ops::attention_backward(e, q(t[0]), k(t[0]), v(t[0]), t[1], t[2], t[3], q(t[4]), k(t[4]), v(t[4]));
      });
    }
  }
}

}  // namespace llmz::test
