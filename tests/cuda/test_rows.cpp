#include "cuda/twins.h"
#include "llmz/ops/activation.h"

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

}  // namespace llmz::test
