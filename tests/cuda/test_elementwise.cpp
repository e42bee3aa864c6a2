#include "cuda/twins.h"
#include "llmz/ops/elementwise.h"
#include "llmz/ops/embedding.h"

namespace llmz::test {
namespace {

const Shape kShapes[] = {{1}, {4097}, {3, 7}, {5, 64}, {2, 3, 4, 8}, {2, 3, 5, 7}};

}  // namespace

TEST_CASE("copy, add and fill: CUDA twins agree with the CPU's") {
  for (const Shape& shape : kShapes) {
    for (DType from : {DType::f32, DType::bf16}) {
      for (DType to : {DType::f32, DType::bf16}) {
        for (int64_t gap : {0, 1, 4}) {
          INFO(dtype_name(from) << " to " << dtype_name(to) << " " << shape.str() << ", gap " << gap);
          HostTensor in = HostTensor::random(from, shape, fresh_seed(), 1.0, gap), out(to, shape, gap);
          compare_twins({&out, &in}, 0, [](Exec& e, const Tensors& t) { ops::copy(e, t[0], t[1]); });
          compare_twins({&out, &in}, 0, [](Exec& e, const Tensors& t) { ops::add(e, t[0], t[1]); });
          compare_twins({&out}, 0, [](Exec& e, const Tensors& t) { ops::fill(e, t[0], 0.3); });
        }
      }
    }
  }
}

TEST_CASE("copy: integers, and a tensor whose middle dimensions are strided") {
  HostTensor ids(DType::i32, {2, 9}), id_copy(DType::i32, {2, 9});
  for (int64_t i = 0; i < ids.size(); ++i) ids.set(i, static_cast<double>(i * 123456789 % 2000000000));
  compare_twins({&id_copy, &ids}, 0, [](Exec& e, const Tensors& t) { ops::copy(e, t[0], t[1]); });
  HostTensor codes(DType::u8, {3, 11}), code_copy(DType::u8, {3, 11});
  for (int64_t i = 0; i < codes.size(); ++i) codes.set(i, static_cast<double>(i * 37 % 256));
  compare_twins({&code_copy, &codes}, 0, [](Exec& e, const Tensors& t) { ops::copy(e, t[0], t[1]); });
  HostTensor cache = HostTensor::random(DType::f32, {2, 6, 3, 4}, fresh_seed()), part(DType::bf16, {2, 2, 3, 4});
  compare_twins({&cache, &part}, 0, [](Exec& e, const Tensors& t) { ops::copy(e, t[1], t[0].slice(1, 3, 2)); });
  compare_twins({&cache, &part}, 0, [](Exec& e, const Tensors& t) { ops::copy(e, t[0].slice(1, 1, 2), t[1]); });
  HostTensor narrow(DType::f32, {2, 6, 2, 4});
  compare_twins({&cache, &narrow}, 0, [](Exec& e, const Tensors& t) { ops::copy(e, t[1], t[0].slice(2, 1, 2)); });
}

TEST_CASE("fill_normal: the GPU makes the CPU's numbers") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (uint64_t first : {uint64_t{0}, uint64_t{1}, uint64_t{6}, (uint64_t{1} << 40) + 3}) {
      HostTensor x(type, {3, 1001});
      // Box and Muller's logarithm and sine differ in the last bits; a bf16 may then round to the other side.
      compare_twins({&x}, type == DType::f32 ? 2e-6 : 4e-3, [&](Exec& e, const Tensors& t) {
        ops::fill_normal(e, t[0], RandomStream(77, Purpose::test, 5), first, 0.5f);
      });
    }
  }
}

TEST_CASE("row_dot, row_means, set_identity, difference_norms: CUDA twins agree with the CPU's") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (const Shape& shape : {Shape{1, 1}, {3, 7}, {5, 64}, {4, 1030}, {7, 7}}) {
      for (int64_t gap : {0, 3, 4}) {
        INFO(dtype_name(type) << " " << shape.str() << ", gap " << gap);
        HostTensor a = HostTensor::random(type, shape, fresh_seed(), 1.0, gap);
        HostTensor b = HostTensor::random(type, shape, fresh_seed(), 1.0, gap);
        HostTensor v = HostTensor::random(DType::f32, {shape[1]}, fresh_seed());
        HostTensor sums = HostTensor::random(DType::f32, {shape[0]}, fresh_seed());
        // Sums of a thousand products of both signs: the error is relative to the terms, not to what is left of them.
        const double sum_tolerance = 1e-5 * std::sqrt(static_cast<double>(shape[1]));
        compare_twins({&sums, &a, &b}, sum_tolerance,
                      [](Exec& e, const Tensors& t) { ops::row_dot(e, t[0], t[1], t[2], 0.5f, true); });
        compare_twins({&sums, &a, &v}, sum_tolerance,
                      [](Exec& e, const Tensors& t) { ops::row_dot(e, t[0], t[1], t[2]); });
        HostTensor norms(DType::f64, {2});
        compare_twins({&norms, &a, &b}, 1e-6,
                      [](Exec& e, const Tensors& t) { ops::difference_norms(e, t[0], t[1], t[2]); });
        HostTensor means = HostTensor::random(type, shape, fresh_seed());
        compare_twins({&means}, tolerance(type), [](Exec& e, const Tensors& t) { ops::row_means(e, t[0]); });
        if (shape[0] != shape[1]) continue;
        compare_twins({&a}, 0, [](Exec& e, const Tensors& t) { ops::set_identity(e, t[0]); });
      }
    }
  }
}

TEST_CASE("embedding: CUDA twins agree with the CPU's, with repeated tokens and few of many ids") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t width : {1, 6, 64, 1028}) {
      for (int64_t rows : {1, 12, 300}) {
        const int64_t ids = rows == 300 ? 2500 : 5, sequence = rows == 1 ? 1 : rows / 3;
        INFO(dtype_name(type) << " width " << width << ", " << rows << " tokens of " << ids);
        HostTensor tokens(DType::i32, {rows});
        for (int64_t t = 0; t < rows; ++t) tokens.set(t, static_cast<double>(t % 3 == 0 ? ids - 1 : t * t * 7 % ids));
        HostTensor table = HostTensor::random(type, {ids, width}, fresh_seed());
        HostTensor positions = HostTensor::random(type, {sequence + 2, width}, fresh_seed());
        HostTensor out(type, {rows, width}), dout = HostTensor::random(type, {rows, width}, fresh_seed());
        compare_twins({&out, &tokens, &table}, 0,
                      [&](Exec& e, const Tensors& t) { ops::embedding_forward(e, t[0], t[1], t[2], {}, sequence, 0); });
        compare_twins({&out, &tokens, &table, &positions}, 0, [&](Exec& e, const Tensors& t) {
          ops::embedding_forward(e, t[0], t[1], t[2], t[3], sequence, 2);
        });
        HostTensor dtable = HostTensor::random(DType::f32, {ids, width}, fresh_seed());
        HostTensor dpositions = HostTensor::random(DType::f32, {sequence + 2, width}, fresh_seed());
        compare_twins({&dtable, &dpositions, &dout, &tokens}, kF32,
                      [&](Exec& e, const Tensors& t) { ops::embedding_backward(e, t[0], t[1], t[2], t[3], sequence); });
        compare_twins({&dtable, &dout, &tokens}, kF32,
                      [&](Exec& e, const Tensors& t) { ops::embedding_backward(e, t[0], {}, t[1], t[2], sequence); });
      }
    }
  }
}

}  // namespace llmz::test
