#include "cuda/twins.h"
#include "llmz/ops/matmul.h"

// Products through cuBLASLt: every layout and mixture of types against the CPU twin.

namespace llmz::test {
namespace {

constexpr DType f32 = DType::f32, bf16 = DType::bf16;
constexpr std::array<DType, 3> kMixtures[] = {{f32, f32, f32},   {bf16, bf16, bf16}, {f32, bf16, bf16},
                                              {f32, f32, bf16},  {f32, bf16, f32},   {bf16, f32, f32},
                                              {bf16, f32, bf16}, {bf16, bf16, f32}};

struct Operands {
  HostTensor c, a, b;
  ops::MatmulArgs how;

  Operands(Shape sizes, std::array<DType, 3> types, int mode, int64_t gap, double alpha = 1.0) {
    how.transpose_a = mode & 1, how.transpose_b = mode & 2, how.accumulate = mode & 4, how.alpha = alpha;
    const int64_t m = sizes[0], n = sizes[1], k = sizes[2];
    c = HostTensor::random(types[0], {m, n}, fresh_seed(), 1.0, gap);
    a = HostTensor::random(types[1], how.transpose_a ? Shape{k, m} : Shape{m, k}, fresh_seed(), 1.0, 2 * gap);
    b = HostTensor::random(types[2], how.transpose_b ? Shape{n, k} : Shape{k, n}, fresh_seed(), 1.0, gap);
  }
  void compare(double relative, bool tf32 = false) {
    compare_twins({&c, &a, &b}, relative, [&](Exec& exec, const Tensors& t) {
      if (Gpu* gpu = exec.memory.gpu(); gpu != nullptr) gpu->set_tf32(tf32);
      ops::matmul(exec, {t[0], t[1], t[2], how.transpose_a, how.transpose_b, how.accumulate, how.alpha});
    });
  }
  /// f32 sums of exact products: only the result's rounding is of its type.
  void compare() { compare(tolerance(c.dtype())); }
};

std::string title(const Shape& sizes, const std::array<DType, 3>& types, int mode, int64_t gap) {
  return fmt::format("{} = {}·{} {} mode {} gap {}", dtype_name(types[0]), dtype_name(types[1]), dtype_name(types[2]),
                     sizes.str(), mode, gap);
}

}  // namespace

TEST_CASE("matmul: CUDA twin agrees with the CPU's in every layout and mixture of types") {
  const Shape sizes[] = {{1, 1, 1}, {3, 7, 64}, {65, 129, 7}, {129, 3, 65}, {64, 64, 128}, {1, 130, 66}, {7, 1, 129}};
  for (const auto& types : kMixtures) {
    for (int mode = 0; mode < 8; ++mode) {
      for (size_t i = static_cast<size_t>(mode / 2) % 2; i < std::size(sizes); i += 2) {
        const int64_t gap = static_cast<int64_t>(3 * i) % 8;  // 0, 3, 6, 1, 4, 7, 2
        INFO(title(sizes[i], types, mode, gap));
        Operands(sizes[i], types, mode, gap).compare();
      }
    }
  }
}

TEST_CASE("matmul: CUDA twin agrees with the CPU's at a hidden size of 5461 and at larger products") {
  const Shape sizes[] = {{5461, 3, 7}, {3, 5461, 65}, {7, 9, 5461}, {140, 132, 136}};
  for (const auto& types : kMixtures) {
    for (const Shape& size : sizes) {
      for (int mode : {0, 1, 2, 7}) {
        const int64_t gap = mode == 2 ? 0 : 3;  // a pitch of 5464 is what a plan gives
        INFO(title(size, types, mode, gap));
        Operands(size, types, mode, gap).compare();
      }
    }
  }
}

TEST_CASE("matmul: CUDA twin scales the product, not what it is added to") {
  for (const auto& types : kMixtures) {
    for (int mode = 0; mode < 8; ++mode) {
      INFO(title({33, 17, 65}, types, mode, 0));
      Operands({33, 17, 65}, types, mode, 0, -0.375).compare();
    }
  }
}

TEST_CASE("matmul: CUDA twin adds a bias to every row, of whatever type and at whatever address") {
  const Shape sizes[] = {{1, 1, 1}, {65, 130, 7}, {33, 64, 66}, {5, 129, 65}};
  for (const auto& types : kMixtures) {
    for (DType bias_type : {f32, bf16}) {
      for (int mode = 0; mode < 8; ++mode) {
        const Shape& size = sizes[static_cast<size_t>(mode + (bias_type == f32 ? 1 : 0)) % 4];
        const int64_t shift = mode % 3;
        INFO(title(size, types, mode, 3) << " + " << dtype_name(bias_type));
        Operands x(size, types, mode, 3, 0.5);
        HostTensor bias = HostTensor::random(bias_type, {size[1] + shift}, fresh_seed(), 3.0);
        compare_twins({&x.c, &x.a, &x.b, &bias}, tolerance(types[0]), [&](Exec& exec, const Tensors& t) {
          ops::MatmulArgs args = x.how;
          args.c = t[0], args.a = t[1], args.b = t[2], args.bias = t[3].slice(0, shift, size[1]);
          ops::matmul(exec, args);
        });
      }
    }
  }
}

TEST_CASE("matmul: CUDA twin keeps products with and without a bias apart, and every bias its own") {
  for (DType type : {f32, bf16}) {
    Operands x({33, 24, 40}, {type, type, type}, 2, 0);
    HostTensor first = HostTensor::random(type, {24}, fresh_seed()),
               second = HostTensor::random(type, {24}, fresh_seed());
    HostTensor plain(type, {33, 24}), other(type, {33, 24});
    compare_twins({&x.c, &plain, &other, &x.a, &x.b, &first, &second}, tolerance(type),
                  [](Exec& exec, const Tensors& t) {
                    ops::matmul(exec, {.c = t[0], .a = t[3], .b = t[4], .transpose_b = true, .bias = t[5]});
                    ops::matmul(exec, {.c = t[1], .a = t[3], .b = t[4], .transpose_b = true});
                    ops::matmul(exec, {.c = t[2], .a = t[3], .b = t[4], .transpose_b = true, .bias = t[6]});
                  });
  }
}

TEST_CASE("matmul: TF32 rounds the factors of f32 products where it is allowed, and no others") {
  // A sum differs by 4e-4 of its usual size in the mean, and one among thousands by five times that.
  for (int mode = 0; mode < 8; ++mode) {
    Operands({65, 33, 129}, {f32, f32, f32}, mode, 0).compare(3 * kTf32, true);
    Operands({65, 33, 129}, {f32, bf16, bf16}, mode, 0).compare(kF32, true);
  }
  Operands x({65, 33, 129}, {f32, f32, f32}, 0, 0);
  std::vector<HostTensor> results;
  for (bool tf32 : {false, true}) {
    HostTensor c = x.c;
    run_on_gpu({&c, &x.a, &x.b}, [&](Exec& exec, const Tensors& t) {
      if (Gpu* gpu = exec.memory.gpu(); gpu != nullptr) gpu->set_tf32(tf32);
      ops::matmul(exec, {t[0], t[1], t[2]});
    });
    results.push_back(c);
  }
  CHECK(!results[0].same_bits(results[1]));
}

TEST_CASE("matmul: CUDA twin on parts of tensors, at addresses that are multiples of their elements only") {
  for (const auto& types : kMixtures) {
    HostTensor c = HostTensor::random(types[0], {40, 50}, fresh_seed());
    HostTensor a = HostTensor::random(types[1], {40, 70}, fresh_seed());
    HostTensor b = HostTensor::random(types[2], {70, 51}, fresh_seed());
    for (int64_t shift : {1, 2, 4, 8}) {
      INFO(title({32, 24, 41}, types, 0, shift));
      compare_twins({&c, &a, &b}, tolerance(types[0]), [&](Exec& exec, const Tensors& t) {
        ops::matmul(exec, {.c = t[0].slice(1, shift, 24).slice(0, 2, 32),
                           .a = t[1].slice(1, 1, 41).slice(0, shift, 32),
                           .b = t[2].slice(1, shift, 24).slice(0, 3, 41),
                           .accumulate = shift == 4});
      });
    }
  }
}

TEST_CASE("matmul: CUDA twin runs from a captured graph") {
  for (const auto& types : kMixtures) {
    Operands x({33, 17, 65}, types, 4, 0, 0.75);
    compare_twins({&x.c, &x.a, &x.b}, tolerance(types[0]), [&](Exec& exec, const Tensors& t) {
      const ops::MatmulArgs args{.c = t[0], .a = t[1], .b = t[2], .accumulate = true, .alpha = 0.75};
      Gpu* const gpu = exec.memory.gpu();
      if (gpu == nullptr) return ops::matmul(exec, args);
      gpu->begin_capture();
      ops::matmul(exec, args);
      gpu->launch(*gpu->end_capture());
    });
  }
}

TEST_CASE("matmul: CUDA twin of an empty sum is zero, and leaves an empty result alone") {
  for (DType type : {f32, bf16}) {
    for (bool accumulate : {false, true}) {
      HostTensor c = HostTensor::random(type, {3, 5}, fresh_seed(), 1.0, 3), a = HostTensor::random(type, {3, 4}, 1);
      HostTensor b = HostTensor::random(type, {4, 5}, 2), bias = HostTensor::random(type, {5}, 3);
      compare_twins({&c, &a, &b}, 0, [&](Exec& exec, const Tensors& t) {
        ops::matmul(exec, {.c = t[0], .a = t[1].slice(1, 0, 0), .b = t[2].slice(0, 0, 0), .accumulate = accumulate});
      });
      for (int64_t i = 0; i < c.size() && !accumulate; ++i) REQUIRE(c.get(i) == 0);
      compare_twins({&c, &a, &b}, 0, [&](Exec& exec, const Tensors& t) {
        ops::matmul(exec, {.c = t[0].slice(0, 0, 0), .a = t[1].slice(0, 0, 0), .b = t[2]});
        ops::matmul(exec, {.c = t[0].slice(1, 0, 0), .a = t[1], .b = t[2].slice(1, 0, 0)});
      });
      compare_twins({&c, &a, &b, &bias}, tolerance(type), [&](Exec& exec, const Tensors& t) {
        ops::matmul(
            exec,
            {.c = t[0], .a = t[1].slice(1, 0, 0), .b = t[2].slice(0, 0, 0), .accumulate = accumulate, .bias = t[3]});
      });
    }
  }
}

TEST_CASE("add_bias and bias_backward: CUDA twins agree with the CPU's") {
  for (DType wide : {f32, bf16}) {
    for (DType narrow : {f32, bf16}) {
      for (const Shape& size :
           {Shape{1, 1}, {3, 7}, {5, 64}, {65, 129}, {513, 65}, {1025, 132}, {2, 5461}, {1600, 3}}) {
        for (int64_t gap : {0, 3, 8}) {
          INFO(dtype_name(wide) << " " << dtype_name(narrow) << " " << size.str() << " gap " << gap);
          HostTensor y = HostTensor::random(wide, size, fresh_seed(), 1.0, gap);
          HostTensor bias = HostTensor::random(narrow, {size[1]}, fresh_seed());
          compare_twins({&bias, &y}, tolerance(narrow),
                        [](Exec& e, const Tensors& t) { ops::bias_backward(e, t[0], t[1]); });
          compare_twins({&y, &bias}, tolerance(wide), [](Exec& e, const Tensors& t) { ops::add_bias(e, t[0], t[1]); });
        }
      }
    }
  }
}

}  // namespace llmz::test
