#include <algorithm>
#include <cstring>
#include <tuple>

#include "fixture.h"
#include "llmz/ops/matmul.h"
#include "reference.h"

using namespace llmz;
using namespace llmz::test;

namespace {

struct Operands {
  HostTensor c, a, b, bias;  ///< bias: none unless `add` was called
  bool transpose_a, transpose_b, accumulate;
  float alpha = 1.0f;
  int64_t m, n, k;

  Operands(Shape sizes, std::array<DType, 3> types, int mode, int64_t gap)
      : transpose_a(mode & 1), transpose_b(mode & 2), accumulate(mode & 4), m(sizes[0]), n(sizes[1]), k(sizes[2]) {
    c = HostTensor::random(types[0], {m, n}, 1, 1.0, gap);
    a = HostTensor::random(types[1], transpose_a ? Shape{k, m} : Shape{m, k}, 2, 1.0, gap);
    b = HostTensor::random(types[2], transpose_b ? Shape{n, k} : Shape{k, n}, 3, 1.0, 2 * gap);
  }

  void add(DType bias_type) { bias = HostTensor::random(bias_type, {n}, 4, 3.0); }

  /// The product in double, and in `bound` the largest Σ|a||b| of an element, to which rounding errors are relative.
  std::vector<double> reference(double& bound) const {
    const std::vector<double> left = a.values(), right = b.values();
    const auto a_at = [&](int64_t i, int64_t l) {
      return left[static_cast<size_t>(transpose_a ? l * m + i : i * k + l)];
    };
    const auto b_at = [&](int64_t l, int64_t j) {
      return right[static_cast<size_t>(transpose_b ? j * k + l : l * n + j)];
    };
    std::vector<double> want(static_cast<size_t>(m * n));
    bound = 0;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0, magnitude = 0;
        for (int64_t l = 0; l < k; ++l) {
          const double term = static_cast<double>(alpha) * a_at(i, l) * b_at(l, j);
          sum += term;
          magnitude += std::fabs(term);
        }
        const double before = (accumulate ? c.get(i * n + j) : 0) + (bias.size() == n ? bias.get(j) : 0);
        want[static_cast<size_t>(i * n + j)] = before + sum;
        bound = std::max(bound, magnitude + std::fabs(before));
      }
    }
    return want;
  }

  double run() {
    return run_op([&](Exec& exec) {
      const Tensor addend = bias.size() == n ? bias.tensor() : Tensor();
      ops::matmul(exec, {c.tensor(), a.tensor(), b.tensor(), transpose_a, transpose_b, accumulate, alpha, addend});
    });
  }
};

/// (k + 2) roundings of the arithmetic's type on the way, each relative to Σ|a||b| at most, and one of the result's.
void compare_with_reference(Operands& x) {
  double bound = 0;
  const std::vector<double> want = x.reference(bound);
  const double flops = x.run();
  CHECK(flops == 2.0 * static_cast<double>(x.m * x.n * x.k));
  const double arithmetic = rounding(x.c.dtype() == DType::f64 ? DType::f64 : DType::f32);
  require_close(x.c, want, static_cast<double>(x.k + 2) * arithmetic * bound, rounding(x.c.dtype()));
  CHECK(x.c.gaps_intact());
}

}  // namespace

TEST_CASE("matmul equals the sum of products in every layout") {
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f64 = DType::f64;
  const std::array<DType, 3> all_types[] = {{f32, f32, f32},   {bf16, bf16, bf16}, {f32, bf16, f32},
                                            {bf16, f32, bf16}, {f32, f32, bf16},   {f64, f64, f64}};
  const Shape sizes[] = {{1, 1, 1}, {1, 129, 65}, {3, 17, 65}, {65, 3, 129}, {129, 65, 17}, {17, 129, 1}};
  for (const auto& types : all_types) {
    for (const Shape& size : sizes) {
      for (int mode = 0; mode < 8; ++mode) {
        for (int64_t gap : {0, 5}) {
          INFO(dtype_name(types[0]) << " " << size.str() << " mode " << mode << " gap " << gap);
          Operands x(size, types, mode, gap);
          compare_with_reference(x);
        }
      }
    }
  }
}

TEST_CASE("matmul equals the sum of products where it is large enough for the other oneDNN kernel") {
  for (int mode = 0; mode < 8; ++mode) {
    for (int64_t gap : {0, 3}) {
      INFO("mode " << mode << " gap " << gap);
      Operands x({130, 259, 513}, {DType::f32, DType::f32, DType::f32}, mode, gap);
      compare_with_reference(x);
    }
  }
}

TEST_CASE("matmul of bf16 matrices equals the sum of products at sizes where oneDNN takes blocks") {
  constexpr DType f32 = DType::f32, bf16 = DType::bf16;
  for (DType result : {f32, bf16}) {
    for (const Shape& size : {Shape{130, 259, 513}, Shape{65, 1, 1030}, Shape{1, 515, 257}}) {
      for (int mode = 0; mode < 8; ++mode) {
        for (int64_t gap : {0, 3}) {
          INFO(dtype_name(result) << " " << size.str() << " mode " << mode << " gap " << gap);
          Operands x(size, {result, bf16, bf16}, mode, gap);
          x.alpha = mode % 3 == 0 ? 1.0f : -0.375f;
          if (mode % 2 == 0) x.add(mode % 4 == 0 ? f32 : bf16);
          compare_with_reference(x);
        }
      }
    }
  }
}

TEST_CASE("matmul of bf16 matrices with rows enough to pack the second factor equals the sum of products") {
  constexpr DType f32 = DType::f32, bf16 = DType::bf16;
  for (DType result : {f32, bf16}) {
    for (const Shape& size : {Shape{768, 64, 64}, Shape{801, 131, 77}}) {
      for (int mode = 0; mode < 8; ++mode) {
        for (int64_t gap : {0, 3}) {
          INFO(dtype_name(result) << " " << size.str() << " mode " << mode << " gap " << gap);
          Operands x(size, {result, bf16, bf16}, mode, gap);
          x.alpha = mode % 3 == 0 ? 1.0f : -0.375f;
          if (mode % 2 == 0) x.add(mode % 4 == 0 ? f32 : bf16);
          compare_with_reference(x);
        }
      }
    }
  }
}

TEST_CASE("matmul of dense bf16 matrices takes no workspace where bf16 is multiplied as such, and copies where not") {
  constexpr DType f32 = DType::f32, bf16 = DType::bf16;
  const auto workspace = [](std::array<DType, 3> types, int64_t gap) {
    Operands x({64, 96, 128}, types, 2, gap);
    Memory recorder;
    Exec dry(recorder);
    {
      const ProgramScope scope(recorder, "test");
      ops::matmul(dry, {.c = x.c.tensor(), .a = x.a.tensor(), .b = x.b.tensor(), .transpose_b = true});
    }
    const MemoryPlan plan = recorder.finish();
    size_t bytes = 0;
    for (const PlannedBuffer& span : plan.programs.at(0).spans) bytes += span.bytes;
    return static_cast<int64_t>(bytes);
  };
  const int64_t a = 64 * 128, b = 96 * 128, c = 64 * 96;
  const bool native = ops::multiplies_bf16(DeviceType::cpu);
  CHECK(workspace({f32, f32, f32}, 0) == 0);
  CHECK(workspace({f32, f32, f32}, 5) == 0);
  CHECK(workspace({f32, bf16, bf16}, 0) == (native ? 0 : 4 * (a + b)));
  CHECK(workspace({bf16, bf16, bf16}, 0) == (native ? 0 : 4 * (a + b + c)));
  CHECK(workspace({bf16, bf16, bf16}, 5) == (native ? 2 : 4) * (a + b + c));  // pitched
  CHECK(workspace({f32, bf16, f32}, 0) == 4 * a);
}

TEST_CASE("matmul scales the product, not what it is added to") {
  for (DType type : {DType::f32, DType::bf16, DType::f64}) {
    for (int mode = 0; mode < 8; ++mode) {
      Operands x({33, 17, 65}, {type, type, type}, mode, 0);
      x.alpha = -0.375f;
      compare_with_reference(x);
    }
  }
}

TEST_CASE("matmul adds a bias to every row, unscaled") {
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f64 = DType::f64;
  const std::array<DType, 3> all_types[] = {{f32, f32, f32}, {bf16, bf16, bf16}, {bf16, f32, bf16}, {f64, f64, f64}};
  for (const auto& types : all_types) {
    for (DType bias_type : {f32, bf16}) {
      for (int mode = 0; mode < 8; ++mode) {
        for (int64_t gap : {0, 3}) {
          INFO(dtype_name(types[0]) << " + " << dtype_name(bias_type) << " mode " << mode << " gap " << gap);
          Operands x({33, 65, 17}, types, mode, gap);
          x.alpha = 0.5f;
          x.add(types[0] == f64 ? f64 : bias_type);
          compare_with_reference(x);
        }
      }
    }
  }
  Operands large({130, 259, 513}, {f32, f32, f32}, 2, 0);
  large.add(f32);
  compare_with_reference(large);
  Operands wrong({3, 5, 7}, {f32, f32, f32}, 0, 0);
  HostTensor longer(f32, {6});
  CHECK_THROWS(run_op([&](Exec& exec) {
    ops::matmul(exec, {.c = wrong.c.tensor(), .a = wrong.a.tensor(), .b = wrong.b.tensor(), .bias = longer.tensor()});
  }));
}

TEST_CASE("matmul of nothing: an empty sum is zero, an empty result is left alone") {
  for (bool accumulate : {false, true}) {
    HostTensor c = HostTensor::random(DType::f32, {3, 4}, 7);
    const std::vector<double> want = accumulate ? c.values() : std::vector<double>(12, 0.0);
    float nothing = 0;
    const Tensor a(&nothing, DType::f32, {3, 0}), b(&nothing, DType::f32, {0, 4});
    run_op([&](Exec& exec) { ops::matmul(exec, {c.tensor(), a, b, false, false, accumulate}); });
    require_close(c, want, 0, 0);
    run_op([&](Exec& exec) {
      ops::matmul(exec, {Tensor(&nothing, DType::f32, {0, 4}), Tensor(&nothing, DType::f32, {0, 3}),
                         c.tensor().slice(0, 0, 3)});
    });
  }
}

TEST_CASE("matmul gives the same bits again, wherever its operands lie") {
  for (DType type : {DType::f32, DType::bf16}) {
    const size_t element = dtype_bytes(type);
    for (int mode = 0; mode < 8; ++mode) {
      std::vector<HostTensor> results;
      for (size_t shift : {0, 16, 4, 1}) {
        Operands x({67, 1030, 259}, {type, type, type}, mode, 0);
        const auto moved = [&](HostTensor& t, std::vector<std::byte>& storage) {  // the same matrix at another address
          const size_t bytes = static_cast<size_t>(t.size()) * element;
          storage.resize(bytes + shift * element);
          std::memcpy(storage.data() + shift * element, t.tensor().data, bytes);
          return Tensor(storage.data() + shift * element, type, t.shape());
        };
        std::vector<std::byte> cs, as, bs;
        const Tensor c = moved(x.c, cs), a = moved(x.a, as), b = moved(x.b, bs);
        run_op([&](Exec& exec) { ops::matmul(exec, {c, a, b, x.transpose_a, x.transpose_b, x.accumulate}); });
        std::memcpy(x.c.tensor().data, c.data, static_cast<size_t>(x.c.size()) * element);
        results.push_back(x.c);
      }
      for (const HostTensor& other : results) CHECK(other.same_bits(results.front()));
    }
  }
}

TEST_CASE("add_bias and bias_backward") {
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f64 = DType::f64;
  for (const auto& [wide, narrow] : {std::pair{f32, f32}, {f32, bf16}, {bf16, f32}, {bf16, bf16}, {f64, f64}}) {
    for (const Shape& size : {Shape{1, 1}, Shape{3, 17}, Shape{65, 129}, Shape{129, 1025}}) {
      const int64_t rows = size[0], width = size[1];
      HostTensor y = HostTensor::random(wide, size, 1, 1.0, 3);
      HostTensor bias = HostTensor::random(narrow, {width}, 2);
      std::vector<double> sum = y.values(), column = bias.values(), magnitude(static_cast<size_t>(width));
      for (int64_t i = 0; i < size.numel(); ++i) {
        const size_t at = static_cast<size_t>(i), j = static_cast<size_t>(i % width);
        column[j] += sum[at];
        magnitude[j] += std::fabs(sum[at]);
        sum[at] += bias.get(i % width);
      }
      const double arithmetic = rounding(wide == f64 ? f64 : f32);
      const double largest = *std::max_element(magnitude.begin(), magnitude.end()) + 5;
      HostTensor dbias = bias;
      run_op([&](Exec& exec) { ops::bias_backward(exec, dbias.tensor(), y.tensor()); });
      require_close(dbias, column, static_cast<double>(rows + 1) * arithmetic * largest, rounding(narrow));
      run_op([&](Exec& exec) { ops::add_bias(exec, y.tensor(), bias.tensor()); });
      require_close(y, sum, 10 * arithmetic, rounding(wide));  // |y + bias| < 10
      CHECK(y.gaps_intact());
    }
  }
}

TEST_CASE("matmul names what does not fit") {
  HostTensor c(DType::f32, {3, 4}), a(DType::f32, {3, 5}), b(DType::f32, {5, 4}), wide(DType::f64, {5, 4});
  HostTensor flat(DType::f32, {12}), whole(DType::i32, {5, 4});
  Memory memory;
  Exec exec(memory);
  const auto message = [&](const ops::MatmulArgs& args) -> std::string {
    try {
      ops::matmul(exec, args);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(message({c.tensor(), a.tensor(), b.tensor(), true}) ==
        "matmul: c [3, 4] = a [3, 5]ᵀ · b [5, 4] does not fit together");
  CHECK(message({c.tensor(), a.tensor(), wide.tensor()}) ==
        "matmul: b [5, 4] is f64, but f64 mixes with no other type");
  CHECK(message({c.tensor(), a.tensor(), whole.tensor()}) == "matmul: b [5, 4] holds i32; f32, bf16 or f64 is needed");
  HostTensor square(DType::f32, {4, 4});
  CHECK(message({square.tensor(), square.tensor(), square.tensor()}) == "matmul: c [4, 4] is its own operand");
  CHECK(message({flat.tensor(), a.tensor(), b.tensor()}) == "matmul: c [12] has 1 dimensions, 2 are needed");
  CHECK(message({c.tensor(), a.tensor(), Tensor()}) == "matmul: b is absent");
  Tensor columns = b.tensor();
  std::swap(columns.strides[0], columns.strides[1]);
  CHECK(message({c.tensor(), a.tensor(), columns}) == "matmul: the rows of b [5, 4] are not dense");
  Tensor elsewhere = b.tensor();
  elsewhere.device = {DeviceType::cuda, 1};
  CHECK(message({c.tensor(), a.tensor(), elsewhere}) == "matmul: b is on cuda:1, the other arguments on cpu");
}
