#include <algorithm>
#include <cmath>
#include <limits>

#include "llmz/ops/optimizer.h"
#include "ops/checks.h"
#include "ops/fixture.h"
#include "ops/reference.h"

namespace llmz::test {
namespace {

/// The 255 values of the signed dynamic tree, by code byte − 1, from its definition.
std::vector<double> tree_values() {
  std::vector<double> values(255, 0.0);
  for (int i = 0; i <= 6; ++i) {
    for (int j = 0; j < 1 << i; ++j) {
      const double value = std::pow(10.0, i - 6) * (0.1 + 0.9 * (j + 0.5) / (1 << i));
      const int q = (1 << i) + j;
      values[static_cast<size_t>(127 + q)] = value;
      values[static_cast<size_t>(127 - q)] = -value;
    }
  }
  return values;
}

double tree_value(int code) {
  static const std::vector<double> values = tree_values();
  return values.at(static_cast<size_t>(code - 1));
}

/// Distance from y to the nearest value, by trying all.
double tree_distance(double y) {
  static const std::vector<double> values = tree_values();
  double best = std::numeric_limits<double>::infinity();
  for (double value : values) best = std::min(best, std::fabs(y - value));
  return best;
}

struct Mix {
  DType weights, grads, statistics;
  bool codes;
};
const Mix kMixes[] = {{DType::f32, DType::f32, DType::f32, false},  {DType::f32, DType::f32, DType::f32, true},
                      {DType::bf16, DType::f32, DType::f32, false}, {DType::bf16, DType::bf16, DType::f32, true},
                      {DType::f64, DType::f64, DType::f64, false},  {DType::f64, DType::f64, DType::f64, true}};

/// The op beside the contract's formulas in double.
struct FactoredRun {
  int64_t rows, width, blocks;
  HostTensor weight, grad, m, codes, scales, row, column, scale;
  std::vector<double> want_w, want_m, want_row, want_column, old_m;
  bool coded;

  FactoredRun(const Mix& mix, int64_t row_count, int64_t row_width)
      : rows(row_count),
        width(row_width),
        blocks((row_width + ops::kMomentBlock - 1) / ops::kMomentBlock),
        weight(HostTensor::random(mix.weights, {rows, width}, 1)),
        grad(mix.grads, {rows, width}),
        m(mix.statistics, {rows, width}),
        codes(DType::u8, {rows, width}),
        scales(DType::f32, {rows, blocks}),
        row(mix.statistics, {rows}),
        column(mix.statistics, {width}),
        scale(DType::f32, {1}),
        coded(mix.codes) {
    scale.set(0, 0.37);
    adopt_storage();
  }

  ops::FactoredAdamWArgs args(int64_t step, bool scaled) {
    ops::FactoredAdamWArgs a;
    a.weight = weight.tensor();
    a.grad = grad.tensor();
    if (coded) {
      a.m_codes = codes.tensor();
      a.m_scales = scales.tensor();
    } else {
      a.m = m.tensor();
    }
    a.row = row.tensor();
    a.column = column.tensor();
    if (scaled) a.grad_scale = scale.tensor();
    a.lr = 1e-2f * static_cast<float>(step);
    a.beta2 = 0.95f;
    a.weight_decay = 0.1f;
    a.step = step;
    return a;
  }

  void step(int64_t number, bool scaled) {
    grad = HostTensor::random(grad.dtype(), grad.shape(), static_cast<unsigned>(number + 10), 0.1);
    const ops::FactoredAdamWArgs a = args(number, scaled);
    run_op([&](Exec& e) { ops::factored_adamw(e, a); });
    plain(a, scaled ? scale.get(0) : 1.0);
  }

  double stored_m(int64_t i) const {
    if (!coded) return m.get(i);
    const double s = scales.get(i / width * blocks + i % width / ops::kMomentBlock);
    return codes.get(i) == 0 ? 0.0 : s * tree_value(static_cast<int>(codes.get(i)));  // 0: fresh memory
  }

  void plain(const ops::FactoredAdamWArgs& a, double factor) {
    const double lr = static_cast<double>(a.lr), beta1 = static_cast<double>(a.beta1);
    const double beta2 = static_cast<double>(a.beta2), eps = static_cast<double>(a.eps);
    old_m = want_m;
    std::vector<double> row_mean(static_cast<size_t>(rows), 0.0), column_mean(static_cast<size_t>(width), 0.0);
    for (int64_t i = 0; i < rows * width; ++i) {
      const double g = grad.get(i) * factor;
      row_mean[static_cast<size_t>(i / width)] += g * g / static_cast<double>(width);
      column_mean[static_cast<size_t>(i % width)] += g * g / static_cast<double>(rows);
    }
    double mean = 0;
    for (size_t i = 0; i < row_mean.size(); ++i) {
      want_row[i] = beta2 * want_row[i] + (1 - beta2) * row_mean[i];
      mean += want_row[i] / static_cast<double>(rows);
    }
    for (size_t j = 0; j < column_mean.size(); ++j) {
      want_column[j] = beta2 * want_column[j] + (1 - beta2) * column_mean[j];
    }
    for (size_t i = 0; i < want_w.size(); ++i) {
      const size_t r = i / static_cast<size_t>(width), c = i % static_cast<size_t>(width);
      want_w[i] -= lr * static_cast<double>(a.weight_decay) * want_w[i];
      want_m[i] = beta1 * want_m[i] + (1 - beta1) * grad.get(static_cast<int64_t>(i)) * factor;
      const double v = want_row[r] * want_column[c] / mean;
      const double m_hat = want_m[i] / (1 - std::pow(beta1, static_cast<double>(a.step)));
      const double v_hat = v / (1 - std::pow(beta2, static_cast<double>(a.step)));
      want_w[i] -= lr * m_hat / (std::sqrt(v_hat) + eps);
    }
  }

  void check_moments(double arithmetic) const {
    if (!coded) return require_close(m, want_m, arithmetic * 0.1, arithmetic);
    int64_t wrong = 0;
    for (int64_t i = 0; i < rows * width; ++i) {
      const double s = scales.get(i / width * blocks + i % width / ops::kMomentBlock);
      const double want = want_m[static_cast<size_t>(i)] / s, got = stored_m(i) / s;
      const double old = old_m[static_cast<size_t>(i)] / s;
      // No value is nearer than the chosen one, but for what fp32 moves m/s and the boundaries by, which a wrong
      // neighbour shows twice. In roundings: a boundary lies within 11 of its place, m/s takes 2, the sum 1, its new
      // part, below |want| + |old|, 2; the old part is read back within 9 of its value and then takes 2 more. 11 and 9
      // are the worst of all boundaries and values, without fused products.
      const double moved = rounding(DType::f32) * (16 * std::fabs(want) + 13 * std::fabs(old));
      wrong += std::fabs(got - want) > tree_distance(want) * (1 + 1e-14) + 2 * moved;
    }
    CHECK(wrong == 0);
  }

  /// So that the roundings of storage do not pile up.
  void adopt_storage() {
    want_w = weight.values();
    want_row = row.values();
    want_column = column.values();
    want_m.clear();
    for (int64_t i = 0; i < rows * width; ++i) want_m.push_back(stored_m(i));
  }
};

/// One step from zero whose m is `values` (row 0 of a gradient, β₁ = 0): their codes and scales.
struct Encoded {
  HostTensor codes, scales;
  explicit Encoded(const std::vector<double>& values)
      : codes(DType::u8, {1, static_cast<int64_t>(values.size())}),
        scales(DType::f32, {1, (static_cast<int64_t>(values.size()) + 255) / 256}) {
    const auto n = static_cast<int64_t>(values.size());
    HostTensor w(DType::f32, {1, n}), g(DType::f32, {1, n}), row(DType::f32, {1}), column(DType::f32, {n});
    g.assign(values);
    ops::FactoredAdamWArgs a;
    a.weight = w.tensor(), a.grad = g.tensor(), a.row = row.tensor(), a.column = column.tensor();
    a.m_codes = codes.tensor(), a.m_scales = scales.tensor();
    a.beta1 = 0;
    run_op([&](Exec& e) { ops::factored_adamw(e, a); });
  }
};

}  // namespace

TEST_CASE("factored_adamw follows the formulas written out in double", "[optimizer]") {
  for (const Mix& mix : kMixes) {
    for (const auto& [rows, width] : {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {1, 300}, {37, 1031}, {131, 257}}) {
      for (bool scaled : {false, true}) {
        FactoredRun run(mix, rows, width);
        for (int64_t number = 1; number <= 5; ++number) {
          INFO(dtype_name(mix.weights) << " codes " << mix.codes << " [" << rows << ", " << width << "] step "
                                       << number);
          run.step(number, scaled);
          // A dozen roundings (fp32 or fp64) on weights below 8 and updates below 1, one of the weight as stored. With
          // codes, m is read back through fp32 constants also in fp64.
          const DType type = mix.weights == DType::f64 && !mix.codes ? DType::f64 : DType::f32;
          const double arithmetic = 64 * rounding(type);
          require_close(run.weight, run.want_w, arithmetic, 1.01 * rounding(mix.weights));
          // Sums of at most 131 squares a column and 1031 a row, in lanes.
          require_close(run.row, run.want_row, 0, 2 * arithmetic);
          require_close(run.column, run.want_column, 0, 2 * arithmetic);
          run.check_moments(arithmetic);
          run.adopt_storage();
        }
      }
    }
  }
}

TEST_CASE("moment codes are the nearest of the 255 values, at every boundary", "[optimizer]") {
  std::vector<double> table = tree_values();
  std::sort(table.begin(), table.end());
  for (size_t k = 0; k + 1 < table.size(); ++k) {
    const double middle = (table[k] + table[k + 1]) / 2, gap = table[k + 1] - table[k];
    // 1 sets the scale; a 1000th of the gap on either side of the boundary decides, as do the values themselves. fp32
    // knows the point to 2^-23 of it, and gaps are above a 130th of their values.
    const Encoded e({1.0, middle - 1e-3 * gap, middle + 1e-3 * gap, table[k], table[k + 1]});
    INFO("between " << table[k] << " and " << table[k + 1]);
    CHECK(e.scales.get(0) == 1.0);
    CHECK(e.codes.get(0) == 255);
    for (int64_t i = 1; i <= 4; ++i) CHECK(tree_value(static_cast<int>(e.codes.get(i))) == table[k + (i % 2 == 0)]);
  }
}

TEST_CASE("moment blocks have scales of their own, and zero and tiny ones are zero", "[optimizer]") {
  std::vector<double> values(256 * 3 + 5, 0.0);
  for (size_t i = 0; i < 256; ++i) values[i] = 1e-6 * std::sin(static_cast<double>(i));
  for (size_t i = 512; i < 768; ++i) values[i] = 1e-39;
  values[256 * 3 + 4] = -50.0;
  const Encoded e(values);
  CHECK(e.scales.get(0) == Approx(1e-6).epsilon(1e-3));
  CHECK(e.scales.get(1) == 0.0);
  CHECK(e.scales.get(3) == 50.0);
  for (int64_t i = 256; i < 772; ++i) CHECK(e.codes.get(i) == 128);
  CHECK(e.codes.get(772) == 1);
}

TEST_CASE("factored_adamw lets NaN and infinity through", "[optimizer]") {
  for (bool codes : {false, true}) {
    for (double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
      FactoredRun run({DType::f32, DType::f32, DType::f32, codes}, 3, 300);
      run.step(1, false);
      run.grad.set(301, bad);
      const ops::FactoredAdamWArgs a = run.args(2, false);
      run_op([&](Exec& e) { ops::factored_adamw(e, a); });
      CHECK(std::isnan(run.weight.get(301)));
      CHECK(!std::isfinite(run.row.get(1)));
      CHECK(!std::isfinite(run.column.get(1)));
      CHECK(!std::isfinite(run.stored_m(301)));
      run.grad.set(301, 0.0);
      run_op([&](Exec& e) { ops::factored_adamw(e, a); });
      CHECK(!std::isfinite(run.stored_m(301)));  // the codes still know
    }
  }
}

TEST_CASE("factored_adamw with a gradient of zeros only decays the weight", "[optimizer]") {
  for (bool codes : {false, true}) {
    FactoredRun run({DType::f32, DType::f32, DType::f32, codes}, 5, 300);
    const std::vector<double> before = run.weight.values();
    const ops::FactoredAdamWArgs a = run.args(1, false);
    run_op([&](Exec& e) { ops::factored_adamw(e, a); });
    const double keep = 1 - static_cast<double>(a.lr) * static_cast<double>(a.weight_decay);
    for (size_t i = 0; i < before.size(); ++i) {
      CHECK(run.weight.get(static_cast<int64_t>(i)) == Approx(before[i] * keep).epsilon(1e-6));  // two roundings
    }
  }
}

TEST_CASE("factored_adamw has the same bits for any number of threads", "[optimizer]") {
  for (bool codes : {false, true}) {
    for (int what = 0; what < 4; ++what) {
      require_same_for_any_threads([&] {
        FactoredRun run({DType::f32, DType::f32, DType::f32, codes}, 261, 1100);
        for (int64_t number = 1; number <= 2; ++number) run.step(number, true);
        return what == 0 ? run.weight : what == 1 ? (codes ? run.codes : run.m) : what == 2 ? run.row : run.column;
      });
    }
  }
}

TEST_CASE("factored_adamw names the argument that is wrong", "[optimizer]") {
  HostTensor w(DType::f32, {2, 300}), codes(DType::u8, {2, 300}), scales(DType::f32, {2, 2}), one(DType::f32, {2, 1});
  HostTensor row(DType::f32, {2}), column(DType::f32, {300});
  ops::FactoredAdamWArgs good;
  good.weight = good.grad = good.m = w.tensor();
  good.row = row.tensor(), good.column = column.tensor();
  const auto refused = [&](auto&& spoil, std::initializer_list<std::string_view> words) {
    ops::FactoredAdamWArgs a = good;
    spoil(a);
    require_error([&](Exec& e) { ops::factored_adamw(e, a); }, words);
  };
  using Args = ops::FactoredAdamWArgs;
  refused([&](Args& a) { a.row = column.tensor(); }, {"factored_adamw", "row", "[300]", "[2]"});
  refused([&](Args& a) { a.m_codes = codes.tensor(); }, {"factored_adamw", "either m or m_codes"});
  refused([&](Args& a) { a.m = {}; }, {"factored_adamw", "either m or m_codes"});
  refused([&](Args& a) { a.m = {}, a.m_codes = codes.tensor(); }, {"factored_adamw", "m_scales"});
  refused([&](Args& a) { a.m = {}, a.m_codes = codes.tensor(), a.m_scales = one.tensor(); },
          {"factored_adamw", "m_scales", "[2, 1]", "[2, 2]"});
  refused([&](Args& a) { a.low.factor = w.tensor(); }, {"factored_adamw", "one of grad and low"});
  refused([&](Args& a) { a.step = 0; }, {"factored_adamw", "step is 0"});
  refused([&](Args& a) { a.beta2 = 1; }, {"factored_adamw", "betas"});
}

}  // namespace llmz::test
