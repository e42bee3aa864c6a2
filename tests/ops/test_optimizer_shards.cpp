// The optimizers' ops on the rows that a rank owns, beside the same ops on the whole weight: random numbers, addresses
// that are multiples of nothing, and means over the rows of all ranks.
#include <cmath>

#include "llmz/ops/optimizer.h"
#include "llmz/ops/projector.h"
#include "ops/reference.h"
#include "ops/thread_ranks.h"

namespace llmz::test {
namespace {

struct Precision {
  DType weight;
  bool shadow = false, stochastic = false;

  DType statistic() const { return weight == DType::f64 ? DType::f64 : DType::f32; }
};
const Precision kPrecisions[] = {
    {DType::f32}, {DType::f32, true, false}, {DType::bf16}, {DType::bf16, false, true}, {DType::f64}};

std::string describe(const Precision& p) {
  return fmt::format("{} weight{}{}", dtype_name(p.weight), p.shadow ? ", shadow" : "",
                     p.stochastic ? ", rounded at random" : "");
}

enum class Gradient { dense, low_rank, low_rank_with_terms };

/// A weight, its gradients and what a step reads beside them. All that has rows has `padded` of them, an equal number
/// for each rank; what is behind `rows` is zero.
struct Weight {
  int64_t rows, padded, width;
  HostTensor weight, shadow, grad, factor, scale, row_term, column_term, grad_scale;
  Precision precision;
  Gradient kind;
  Projector projector;

  Weight(const Precision& p, Gradient gradient, int64_t row_count, int64_t row_width, int ranks)
      : rows(row_count),
        padded((row_count + ranks - 1) / ranks * ranks),
        width(row_width),
        weight(p.weight, {padded, width}),
        shadow(DType::bf16, {padded, width}),
        scale(HostTensor::random(p.statistic(), {width}, 2)),
        column_term(HostTensor::random(p.statistic(), {width}, 3)),
        grad_scale(DType::f32, {1}),
        precision(p),
        kind(gradient),
        projector{.width = width, .random_rank = 3, .random = Projector::Random::sign, .seed = 5, .layer = 1} {
    fill(weight, 1, 1.0);
    grad_scale.set(0, 0.37);
  }

  /// Standard normal numbers in the rows that the weight has.
  void fill(HostTensor& t, unsigned seed, double size) const {
    t.assign(HostTensor::random(t.dtype(), t.shape(), seed, size).values());
    for (int64_t i = rows * (t.size() / padded); i < t.size(); ++i) t.set(i, 0.0);
  }
  void draw_gradient(int64_t step) {
    const auto seed = static_cast<unsigned>(10 * step);
    grad = HostTensor(precision.weight, {padded, width});
    factor = HostTensor(precision.statistic(), {padded, projector.rank()});
    row_term = HostTensor(precision.statistic(), {padded});
    fill(grad, seed, 0.1);
    fill(factor, seed + 1, 0.1);
    fill(row_term, seed + 2, 0.1);
  }

  /// What a step on rows [first, first + count) takes.
  template <class Args>
  void set_rows(Args& a, int64_t first, int64_t count, int64_t step) {
    a.weight = weight.tensor().slice(0, first, count);
    a.grad_scale = grad_scale.tensor();
    a.lr = 1e-2f * static_cast<float>(step);
    a.beta2 = 0.95f, a.weight_decay = 0.1f;
    a.step = step;
    if (precision.shadow) a.rounding.shadow = shadow.tensor().slice(0, first, count);
    if (precision.stochastic) a.rounding.stochastic = RandomStream(21, Purpose::weight_rounding, 1);
    a.rounding.first = static_cast<uint64_t>(first * width);
    if (kind == Gradient::dense) return;
    a.low.factor = factor.tensor().slice(0, first, count);
    a.low.projector = &projector;
    if (kind == Gradient::low_rank) return;
    a.low.column_scale = scale.tensor();
    a.low.row_term = row_term.tensor().slice(0, first, count);
    a.low.column_term = column_term.tensor();
  }
  /// What expanding the gradient of few rows and of many may differ by: nothing, but where a matrix product takes part,
  /// which may run through other kernels. Its terms are below 2, and some 4 roundings differ.
  double expansion_error() const {
    const bool product = kind == Gradient::low_rank_with_terms || projector.random == Projector::Random::gaussian;
    return product ? 8 * rounding(precision.statistic()) : 0;
  }
  Tensor dense_rows(int64_t first, int64_t count) {
    return kind == Gradient::dense ? grad.tensor().slice(0, first, count) : Tensor();
  }
};

/// A weight under factored_adamw. `columns`: one moving average for each rank.
struct Factored {
  Weight w;
  int ranks;
  bool coded;
  HostTensor m, codes, scales, row;
  std::vector<HostTensor> columns;

  Factored(const Precision& p, Gradient gradient, int64_t rows, int64_t width, int rank_count, bool with_codes)
      : w(p, gradient, rows, width, rank_count),
        ranks(rank_count),
        coded(with_codes),
        m(p.statistic(), {w.padded, width}),
        codes(DType::u8, {w.padded, width}),
        scales(DType::f32, {w.padded, (width + ops::kMomentBlock - 1) / ops::kMomentBlock}),
        row(p.statistic(), {w.padded}),
        columns(static_cast<size_t>(rank_count), HostTensor(p.statistic(), {width})) {}

  ops::FactoredAdamWArgs args(int rank, int64_t first, int64_t count, int64_t step) {
    ops::FactoredAdamWArgs a;
    w.set_rows(a, first, count, step);
    a.grad = w.dense_rows(first, count);
    if (coded) {
      a.m_codes = codes.tensor().slice(0, first, count);
      a.m_scales = scales.tensor().slice(0, first, count);
    } else {
      a.m = m.tensor().slice(0, first, count);
    }
    a.row = row.tensor().slice(0, first, count);
    a.column = columns[static_cast<size_t>(rank)].tensor();
    return a;
  }
  void step_whole(int64_t step) {
    w.draw_gradient(step);
    const ops::FactoredAdamWArgs a = args(0, 0, w.rows, step);
    run_op([&](Exec& e) { ops::factored_adamw(e, a); });
  }
  Traffic step_spread(int64_t step) {
    w.draw_gradient(step);
    const int64_t each = w.padded / ranks;
    return run_on_ranks(ranks, [&](Exec& e, int rank) {
      ops::FactoredAdamWArgs a = args(rank, rank * each, each, step);
      a.total_rows = w.rows;
      ops::factored_adamw(e, a);
    });
  }
};

int64_t others_than(const HostTensor& got, const HostTensor& want) {
  int64_t others = 0;
  for (int64_t i = 0; i < got.size(); ++i) others += got.get(i) != want.get(i);
  return others;
}

/// Where fp32's last bits differ, a bf16 weight's neighbour is another now and then: some 20 roundings of 2^-24 beside
/// a spacing of 2^-8 are one element of 3000 a step. With other random numbers it would be half of them.
void check_choices(const HostTensor& got, const HostTensor& want, int64_t steps) {
  if (got.dtype() == DType::bf16) CHECK(others_than(got, want) <= steps + got.size() / 300);
}

/// What depends on a row alone has the same bits but for the gradient's. The column's average is a sum of the ranks'
/// shares: each is rounded, and so is each partial sum, all terms being positive; what a step adds to the relative
/// error joins that of the steps before. Half of it is in 1/√v, and an update, which is below lr·10, has it; then the
/// weight is rounded.
void require_equal(const Factored& spread, const Factored& whole, int64_t step) {
  const Weight &got = spread.w, &want = whole.w;
  const DType type = got.precision.statistic();
  const double gradient = got.expansion_error(), steps = static_cast<double>(step);
  require_close(spread.m, whole.m.values(), gradient, gradient);
  require_close(spread.row, whole.row.values(), 0, 4 * gradient);
  REQUIRE(spread.scales.same_bits(whole.scales));
  const double column = steps * static_cast<double>(spread.ranks + 4) * rounding(type) + 4 * gradient;
  for (const HostTensor& c : spread.columns) {
    REQUIRE(c.same_bits(spread.columns.front()));
    require_close(c, whole.columns.front().values(), gradient * gradient, column);
  }
  for (int64_t i = 0; i < spread.codes.size(); ++i) {
    const bool padding = i >= got.rows * got.width;
    REQUIRE(spread.codes.get(i) == (padding && spread.coded ? 128 : whole.codes.get(i)));  // 128 is nothing
  }
  const double update = 10 * 1e-2 * steps * (column / 2 + 4 * rounding(type) + 10 * gradient);
  const double stored = steps * 2 * (rounding(type) + rounding(got.precision.weight));
  require_close(got.weight, want.weight.values(), steps * update, stored);
  if (got.precision.shadow) require_close(got.shadow, want.shadow.values(), steps * update, 2 * rounding(DType::bf16));
  check_choices(got.weight, want.weight, step);
  for (int64_t i = got.rows * got.width; i < got.weight.size(); ++i) REQUIRE(got.weight.get(i) == 0);
}

/// Rows of an op's tensors, in one piece and in three: 5, 4 and 4 of them, whose addresses are no multiples of
/// anything.
constexpr int64_t kRows = 13;
constexpr std::pair<int64_t, int64_t> kParts[] = {{0, 5}, {5, 4}, {9, 4}};

/// Above what would make an update sensitive to a gradient near zero.
HostTensor second_moments(const HostTensor& m) {
  HostTensor v = m;
  for (int64_t i = 0; i < v.size(); ++i) v.set(i, std::fabs(v.get(i)) + 1e-2);
  return v;
}

/// The same bits, or what the gradient's error does to an update of lr/√v times it, with √v/(1 − β₂) above 0.4.
void require_rows_of(const Weight& parts, const Weight& whole) {
  const double error = whole.expansion_error();
  if (error == 0) {
    REQUIRE(parts.weight.same_bits(whole.weight));
    REQUIRE(parts.shadow.same_bits(whole.shadow));
    return;
  }
  const double stored = 2 * rounding(whole.precision.weight);
  require_close(parts.weight, whole.weight.values(), error, stored);
  require_close(parts.shadow, whole.shadow.values(), error, 2 * rounding(DType::bf16));
  check_choices(parts.weight, whole.weight, 1);
}

}  // namespace

TEST_CASE("factored_adamw on rows spread over ranks is that of the whole weight", "[optimizer]") {
  struct Layout {
    int64_t rows, width;
    int ranks;
  };
  for (const Precision& p : kPrecisions) {
    for (const Gradient gradient : {Gradient::dense, Gradient::low_rank, Gradient::low_rank_with_terms}) {
      for (const auto& [rows, width, ranks] : {Layout{7, 33, 3}, {1, 5, 2}, {2, 300, 3}, {70, 301, 2}, {8, 16, 4}}) {
        for (bool coded : {false, true}) {
          if (coded && gradient == Gradient::low_rank_with_terms) continue;  // at a code's boundary m decides by a bit
          INFO(describe(p) << ", gradient " << static_cast<int>(gradient) << ", codes " << coded << ", [" << rows
                           << ", " << width << "] on " << ranks << " ranks");
          Factored spread(p, gradient, rows, width, ranks, coded), whole = spread;
          whole.w.projector = spread.w.projector;
          for (int64_t step = 1; step <= 4; ++step) {
            INFO("step " << step);
            whole.step_whole(step);
            const Traffic traffic = spread.step_spread(step);
            CHECK(traffic[Traffic::all_reduce] ==
                  static_cast<double>(width) * static_cast<double>(dtype_bytes(p.statistic())) + 8);
            require_equal(spread, whole, step);
          }
        }
      }
    }
  }
}

TEST_CASE("factored_adamw with total_rows and nobody beside it is the whole", "[optimizer]") {
  Factored alone({DType::f32}, Gradient::dense, 7, 33, 1, false), whole = alone;
  alone.step_spread(1);
  whole.step_whole(1);
  CHECK(alone.w.weight.same_bits(whole.w.weight));
  ops::FactoredAdamWArgs a = alone.args(0, 0, 7, 2), b = whole.args(0, 0, 7, 2);
  a.total_rows = 7;
  run_op([&](Exec& e) { ops::factored_adamw(e, a); });
  run_op([&](Exec& e) { ops::factored_adamw(e, b); });
  CHECK(alone.w.weight.same_bits(whole.w.weight));
  CHECK(alone.columns[0].same_bits(whole.columns[0]));
}

TEST_CASE("factored_adamw on ranks: no gradient anywhere, and NaN on one rank, which reaches all", "[optimizer]") {
  for (bool coded : {false, true}) {
    Factored f({DType::f32}, Gradient::dense, 4, 9, 2, coded);
    const auto step = [&](double first_element) {
      f.w.grad = HostTensor(DType::f32, {4, 9});
      f.w.grad.set(0, first_element);
      run_on_ranks(2, [&](Exec& e, int rank) {
        ops::FactoredAdamWArgs a = f.args(rank, 2 * rank, 2, 1);
        a.total_rows = 4;
        ops::factored_adamw(e, a);
      });
    };
    const std::vector<double> before = f.w.weight.values();
    step(0.0);
    const double keep = 1 - 1e-2 * 0.1;
    for (int64_t i = 0; i < 36; ++i) {
      CHECK(f.w.weight.get(i) == Approx(before[static_cast<size_t>(i)] * keep).epsilon(1e-6));  // two roundings
    }
    step(std::nan(""));
    for (const HostTensor& column : f.columns) CHECK(std::isnan(column.get(0)));
    CHECK(std::isnan(f.w.weight.get(0)));
    CHECK(std::isnan(f.w.weight.get(27)));  // column 0 of the other rank
  }
}

TEST_CASE("adamw on a rank's rows is that of the whole, to the bit where no product makes the gradient",
          "[optimizer]") {
  for (const Precision& p : kPrecisions) {
    for (const Gradient gradient : {Gradient::dense, Gradient::low_rank, Gradient::low_rank_with_terms}) {
      for (const int64_t width : {1, 3, 33, 300}) {
        if (gradient != Gradient::dense && width < 3) continue;
        INFO(describe(p) << ", gradient " << static_cast<int>(gradient) << ", width " << width);
        Weight whole(p, gradient, kRows, width, 1);
        whole.draw_gradient(1);
        HostTensor m = HostTensor::random(p.statistic(), {kRows, width}, 7, 0.1), v = second_moments(m);
        Weight parts = whole;
        HostTensor part_m = m, part_v = v;
        const auto step = [&](Weight& w, HostTensor& first, HostTensor& second, int64_t begin, int64_t count) {
          ops::AdamWArgs a;
          w.set_rows(a, begin, count, 1);
          a.grad = w.dense_rows(begin, count);
          a.m = first.tensor().slice(0, begin, count), a.v = second.tensor().slice(0, begin, count);
          run_op([&](Exec& e) { ops::adamw(e, a); });
        };
        step(whole, m, v, 0, kRows);
        for (const auto& [begin, count] : kParts) step(parts, part_m, part_v, begin, count);
        require_rows_of(parts, whole);
        require_close(part_m, m.values(), whole.expansion_error(), 0);
        require_close(part_v, v.values(), whole.expansion_error(), 0);
      }
    }
  }
}

TEST_CASE("projected_adam on a rank's rows is that of the whole, to the bit where no product makes the update",
          "[optimizer]") {
  using Random = Projector::Random;
  for (const Precision& p : kPrecisions) {
    for (const int64_t width : {5, 33, 300}) {
      for (const Random random : {Random::sign, Random::gaussian}) {
        INFO(describe(p) << ", width " << width << ", projector " << static_cast<int>(random));
        Weight whole(p, Gradient::low_rank, kRows, width, 1);
        whole.projector.random = random;
        whole.draw_gradient(1);
        HostTensor m = HostTensor::random(p.statistic(), {kRows, 3}, 7, 0.1), v = second_moments(m);
        Weight parts = whole;
        HostTensor part_m = m, part_v = v;
        const auto step = [&](Weight& w, HostTensor& first, HostTensor& second, int64_t begin, int64_t count) {
          ops::ProjectedAdamArgs a;
          w.set_rows(a, begin, count, 1);
          a.m = first.tensor().slice(0, begin, count), a.v = second.tensor().slice(0, begin, count);
          run_op([&](Exec& e) { ops::projected_adam(e, a); });
        };
        step(whole, m, v, 0, kRows);
        for (const auto& [begin, count] : kParts) step(parts, part_m, part_v, begin, count);
        require_rows_of(parts, whole);
        require_close(part_m, m.values(), whole.expansion_error(), 0);
        require_close(part_v, v.values(), whole.expansion_error(), 0);
      }
    }
  }
}

TEST_CASE("squares of a gradient's rows add up to those of the whole", "[optimizer]") {
  for (const Gradient gradient : {Gradient::dense, Gradient::low_rank, Gradient::low_rank_with_terms}) {
    for (const int64_t width : {3, 33, 300}) {
      Weight w({DType::f64}, gradient, kRows, width, 1);
      w.draw_gradient(1);
      const auto squares = [&](double& total, int64_t begin, int64_t count) {
        ops::AdamWArgs a;
        w.set_rows(a, begin, count, 1);
        const Tensor sum(&total, DType::f64, {1});
        run_op([&](Exec& e) {
          if (gradient == Gradient::dense) return ops::sum_of_squares(e, sum, w.dense_rows(begin, count));
          ops::expanded_sum_of_squares(e, sum, a.low);
        });
      };
      double whole = 0, parts = 0;
      squares(whole, 0, kRows);
      for (const auto& [begin, count] : kParts) squares(parts, begin, count);
      CHECK(parts == Approx(whole).epsilon(1e-12));  // some thousand roundings of fp64, with some cancellation
    }
  }
}

}  // namespace llmz::test
