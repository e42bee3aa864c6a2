#include "cuda/twins.h"
#include "llmz/ops/activation.h"
#include "llmz/ops/attention.h"
#include "llmz/ops/loss.h"
#include "llmz/ops/norm.h"
#include "llmz/ops/projector.h"

// Ops that work row by row: every twin against its CPU twin, at widths that are and are not multiples of four, with
// gaps between rows, in both types.

namespace llmz::test {
namespace {

struct Case {
  DType type;
  Shape shape;
  int64_t gap;
  unsigned seed;
  HostTensor random(double scale = 1.0) const {
    static unsigned next = 0;
    return HostTensor::random(type, shape, seed + 7919 * ++next, scale, gap);
  }
  HostTensor zeros() const { return HostTensor(type, shape, gap); }
  HostTensor row_numbers() const { return HostTensor(DType::f32, {shape[0]}); }
};

void for_cases(const std::function<void(const Case&)>& f) {
  for (DType type : {DType::f32, DType::bf16}) {
    for (const Shape& shape : {Shape{1, 1}, {3, 7}, {5, 64}, {9, 129}, {4, 1024}, {3, 2055}, {2, 5461}}) {
      for (int64_t gap : {0, 3, 8}) {
        const Case c{type, shape, gap, fresh_seed()};
        INFO(dtype_name(type) << " " << shape.str() << ", gap " << gap << ", seed " << c.seed);
        f(c);
      }
    }
  }
}

}  // namespace

TEST_CASE("activation: CUDA twins agree with the CPU's") {
  for_cases([](const Case& c) {
    HostTensor gate = c.random(3), up = c.random(), out = c.zeros();
    compare_twins({&out, &gate, &up}, tolerance(c.type),
                  [](Exec& e, const Tensors& t) { ops::swiglu_forward(e, t[0], t[1], t[2]); });
    compare_twins({&out, &gate}, tolerance(c.type),
                  [](Exec& e, const Tensors& t) { ops::gelu_forward(e, t[0], t[1]); });
    HostTensor dout = c.random(), dgate = c.zeros(), dup = c.zeros(), sums = c.row_numbers();
    compare_twins({&dgate, &dup, &dout, &gate, &up, &sums}, tolerance(c.type),
                  [](Exec& e, const Tensors& t) { ops::swiglu_backward(e, t[0], t[1], t[2], t[3], t[4], t[5]); });
    compare_twins({&dout, &gate, &up}, tolerance(c.type), [](Exec& e, const Tensors& t) {  // in place
      ops::swiglu_backward(e, t[1], t[2], t[0], t[1], t[2]);
    });
    HostTensor x = c.random(2);
    compare_twins({&dgate, &dout, &x, &sums}, tolerance(c.type),
                  [](Exec& e, const Tensors& t) { ops::gelu_backward(e, t[0], t[1], t[2], t[3]); });
  });
}

TEST_CASE("norms: CUDA twins agree with the CPU's") {
  for_cases([](const Case& c) {
    const int64_t width = c.shape[1];
    const DType other = c.seed % 2 == 0 ? DType::f32 : c.type;  // gradients of gains are often wider than the rest
    HostTensor x = c.random(2), gain = HostTensor::random(c.type, {width}, c.seed), out = c.zeros(), xhat = c.zeros();
    HostTensor bias = HostTensor::random(c.type, {width}, c.seed + 1), rstd = c.row_numbers();
    compare_twins({&out, &xhat, &rstd, &x, &gain}, tolerance(c.type),
                  [](Exec& e, const Tensors& t) { ops::rmsnorm_forward(e, t[0], t[1], t[2], t[3], t[4], 1e-6f); });
    compare_twins({&out, &rstd, &x, &gain}, tolerance(c.type),
                  [](Exec& e, const Tensors& t) { ops::rmsnorm_forward(e, t[0], {}, t[1], t[2], t[3], 1e-6f); });
    HostTensor again = c.zeros();
    compare_twins({&again, &xhat, &gain}, tolerance(c.type),
                  [](Exec& e, const Tensors& t) { ops::norm_apply_gain(e, t[0], t[1], t[2], {}); });
    compare_twins({&again, &xhat, &gain, &bias}, tolerance(c.type),
                  [](Exec& e, const Tensors& t) { ops::norm_apply_gain(e, t[0], t[1], t[2], t[3]); });
    HostTensor dx = c.random(), dy = c.random(), dgain = HostTensor::random(other, {width}, c.seed + 2),
               sums = c.row_numbers();
    HostTensor dbias = HostTensor::random(other, {width}, c.seed + 3);
    for (int64_t i = 0; i < sums.size(); ++i) sums.set(i, 0.1 * static_cast<double>(i + 1));
    compare_twins({&dx, &dgain, &dy, &xhat, &rstd, &gain}, tolerance(c.type),
                  [](Exec& e, const Tensors& t) { ops::rmsnorm_backward(e, t[0], t[1], t[2], t[3], t[4], t[5]); });
    compare_twins({&dx, &dgain, &dy, &xhat, &rstd, &gain, &sums}, tolerance(c.type), [](Exec& e, const Tensors& t) {
      ops::rmsnorm_backward(e, t[0], t[1], t[2], t[3], t[4], t[5], t[6]);
    });
    // A width of one has variance zero: x̂ is rounding noise over √eps, on any device.
    if (width == 1) return;
    compare_twins({&out, &xhat, &rstd, &x, &gain, &bias}, tolerance(c.type), [](Exec& e, const Tensors& t) {
      ops::layernorm_forward(e, t[0], t[1], t[2], t[3], t[4], t[5], 1e-5f);
    });
    for (bool known : {false, true}) {
      compare_twins({&dx, &dgain, &dbias, &dy, &xhat, &rstd, &gain, &sums}, tolerance(c.type),
                    [&](Exec& e, const Tensors& t) {
                      ops::layernorm_backward(e, t[0], t[1], t[2], t[3], t[4], t[5], t[6], known ? t[7] : Tensor());
                    });
    }
  });
}

TEST_CASE("ops that sketch what they write: CUDA twins agree with the CPU's, and with a sketch made afterwards") {
  for_cases([](const Case& c) {
    const int64_t rows = c.shape[0], width = c.shape[1];
    const Projector p{
        .width = width, .random_rank = (width + 3) / 4, .random = Projector::Random::sign, .seed = c.seed, .layer = 5};
    HostTensor x = c.random(2), y = c.random(), xhat = c.zeros(), rstd = c.row_numbers();
    HostTensor gain = HostTensor::random(c.type, {width}, c.seed), bias = HostTensor::random(c.type, {width}, 1);
    using Op = void (*)(Exec&, const Tensors&, const SketchEpilogue&);
    const std::vector<Op> ops = {
        [](Exec& e, const Tensors& t, const SketchEpilogue& s) {
          ops::rmsnorm_forward(e, t[0], t[2], t[3], t[4], t[5], 1e-6f, s);
        },
        [](Exec& e, const Tensors& t, const SketchEpilogue& s) {
          ops::rmsnorm_forward(e, t[0], {}, t[3], t[4], t[5], 1e-6f, s);
        },
        [](Exec& e, const Tensors& t, const SketchEpilogue& s) { ops::swiglu_forward(e, t[0], t[4], t[7], s); },
        [](Exec& e, const Tensors& t, const SketchEpilogue& s) { ops::gelu_forward(e, t[0], t[4], s); },
        [](Exec& e, const Tensors& t, const SketchEpilogue& s) {
          ops::layernorm_forward(e, t[0], t[2], t[3], t[4], t[5], t[6], 1e-5f, s);
        }};
    for (size_t i = 0; i < ops.size() - (width == 1 ? 1 : 0); ++i) {  // LayerNorm of a width of one: rounding noise
      INFO("op " << i);
      HostTensor out = c.zeros(), z(c.type, {rows, p.random_rank}, c.gap);
      const std::vector<HostTensor*> all = {&out, &z, &xhat, &rstd, &x, &gain, &bias, &y};
      compare_twins(all, tolerance(c.type), [&](Exec& e, const Tensors& t) { ops[i](e, t, {t[1], &p}); });
      const HostTensor fused_out = out, fused_z = z;
      run_on_gpu(all, [&](Exec& e, const Tensors& t) {
        ops[i](e, t, {});
        ops::project(e, t[1], t[0], p);
      });
      REQUIRE((out.same_bits(fused_out) && z.same_bits(fused_z)));
    }
  });
}

TEST_CASE("norms: x̂·gain again has the forward's bits on the GPU") {
  for_cases([](const Case& c) {
    HostTensor x = c.random(2), gain = HostTensor::random(c.type, {c.shape[1]}, c.seed), out = c.zeros();
    HostTensor xhat = c.zeros(), rstd = c.row_numbers(), again = c.zeros();
    run_on_gpu({&out, &xhat, &rstd, &x, &gain, &again}, [](Exec& e, const Tensors& t) {
      ops::rmsnorm_forward(e, t[0], t[1], t[2], t[3], t[4], 1e-6f);
      ops::norm_apply_gain(e, t[5], t[1], t[4], {});
    });
    REQUIRE(out.same_bits(again));
  });
}

TEST_CASE("cross-entropy: the CUDA twin agrees with the CPU's") {
  for_cases([](const Case& c) {
    HostTensor logits = c.random(4), losses = c.row_numbers(), targets(DType::i32, {c.shape[0]});
    for (int64_t t = 0; t < c.shape[0]; ++t)
      targets.set(t, t == 1 ? -1 : static_cast<double>((c.seed + t) % c.shape[1]));
    compare_twins({&losses, &logits, &targets}, tolerance(c.type),
                  [](Exec& e, const Tensors& t) { ops::softmax_cross_entropy(e, t[0], t[1], t[2], false, 1.0f); });
    compare_twins({&losses, &logits, &targets}, tolerance(c.type),
                  [](Exec& e, const Tensors& t) { ops::softmax_cross_entropy(e, t[0], t[1], t[2], true, 0.125f); });
  });
}

TEST_CASE("rotary: the CUDA twin agrees with the CPU's, far out too") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (const Shape& shape : {Shape{1, 1, 1, 2}, {2, 5, 3, 6}, {2, 9, 4, 64}, {1, 3, 2, 80}, {3, 4, 1, 10}}) {
      for (int64_t offset : {int64_t{0}, int64_t{100000}}) {
        for (bool inverse : {false, true}) {
          HostTensor x = HostTensor::random(type, shape, fresh_seed());
          compare_twins({&x}, tolerance(type),
                        [&](Exec& e, const Tensors& t) { ops::rotary(e, t[0], offset, 10000.0f, inverse); });
          // The query and key heads of a fused buffer: a slice of each row.
          if (shape[2] < 3) continue;
          compare_twins({&x}, tolerance(type), [&](Exec& e, const Tensors& t) {
            ops::rotary(e, t[0].slice(2, 1, 2), offset, 10000.0f, inverse);
          });
        }
      }
    }
  }
}

TEST_CASE("norms: widths whose shared memory just fits what a block has without asking") {
  for (const bool layer : {true, false}) {
    const int64_t width = layer ? 6144 : 12288;
    const DType type = DType::bf16;
    HostTensor dx = HostTensor::random(type, {2, width}, fresh_seed()), dy = HostTensor::random(type, {2, width}, 1);
    HostTensor xhat = HostTensor::random(type, {2, width}, fresh_seed()), gain = HostTensor::random(type, {width}, 2);
    HostTensor rstd(DType::f32, {2}), dgain(DType::f32, {width}), dbias(DType::f32, {width});
    for (int64_t t = 0; t < 2; ++t) rstd.set(t, 0.5);
    compare_twins({&dx, &dgain, &dbias, &dy, &xhat, &rstd, &gain}, kBf16, [&](Exec& e, const Tensors& t) {
      if (layer) return ops::layernorm_backward(e, t[0], t[1], t[2], t[3], t[4], t[5], t[6]);
      ops::rmsnorm_backward(e, t[0], t[1], t[3], t[4], t[5], t[6]);
    });
  }
}

}  // namespace llmz::test
