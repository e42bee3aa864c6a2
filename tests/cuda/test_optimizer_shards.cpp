// The optimizers' CUDA twins on a rank's rows: slices whose addresses are multiples of one element, and whose random
// numbers begin anywhere. The same kernels run on the whole, in fours where these cannot.
#include "cuda/twins.h"
#include "llmz/ops/elementwise.h"
#include "llmz/ops/optimizer.h"
#include "llmz/ops/projector.h"

namespace llmz::test {
namespace {

constexpr int64_t kRows = 45;
struct Rows {
  int64_t first, count;
};
constexpr Rows kWhole[] = {{0, kRows}}, kParts[] = {{0, 15}, {15, 15}, {30, 15}},
               kUneven[] = {{0, 1}, {1, 17}, {18, 27}};

struct Precision {
  DType weight, gradient;
  bool shadow = false, stochastic = false;
};
constexpr Precision kPrecisions[] = {{DType::f32, DType::f32},
                                     {DType::f32, DType::f32, true, false},
                                     {DType::bf16, DType::f32, false, true},
                                     {DType::bf16, DType::bf16, false, true}};

ops::WeightRounding rounding_of(const Precision& p, const Tensor& shadow, int64_t first) {
  ops::WeightRounding rounding;
  if (p.shadow) rounding.shadow = shadow;
  if (p.stochastic) rounding.stochastic = RandomStream(5, Purpose::weight_rounding, 3);
  rounding.first = static_cast<uint64_t>(first);
  return rounding;
}

/// Runs `body` for all rows at once, and for parts of them, on the GPU, and requires the same of both in the tensors of
/// `tensors` that have `kRows` rows. What differs by the last bit of fp32 may fall to the other bf16: one in some 300.
void compare_rows(const std::vector<HostTensor*>& tensors,
                  const std::function<void(Exec&, const Tensors&, Rows)>& body) {
  const auto run = [&](std::span<const Rows> parts) {
    std::vector<HostTensor> copies;
    for (const HostTensor* t : tensors) copies.push_back(*t);
    std::vector<HostTensor*> pointers;
    for (HostTensor& t : copies) pointers.push_back(&t);
    run_on_gpu(pointers, [&](Exec& e, const Tensors& all) {
      for (const Rows& rows : parts) {
        Tensors views;
        for (const Tensor& t : all) views.push_back(t.dim(0) == kRows ? t.slice(0, rows.first, rows.count) : t);
        body(e, views, rows);
      }
    });
    return copies;
  };
  const std::vector<HostTensor> whole = run(kWhole);
  for (const auto& parts : {std::span<const Rows>(kParts), std::span<const Rows>(kUneven)}) {
    const std::vector<HostTensor> pieces = run(parts);
    for (size_t i = 0; i < whole.size(); ++i) {
      INFO("tensor " << i << " of the call, first part of " << parts.front().count << " rows");
      const DType type = whole[i].dtype();
      require_close(pieces[i], whole[i].values(), tolerance(type) * size_of(whole[i]), tolerance(type));
      int64_t others = 0;
      for (int64_t e = 0; e < whole[i].size(); ++e) others += pieces[i].get(e) != whole[i].get(e);
      if (type == DType::bf16) REQUIRE(others <= 1 + whole[i].size() / 300);
    }
  }
}

/// The weight, the moments, the gradient, the shadow.
struct State {
  HostTensor weight, m, v, grad, shadow;
  State(const Precision& p, int64_t width, int64_t moments)
      : weight(HostTensor::random(p.weight, {kRows, width}, fresh_seed())),
        m(HostTensor::random(DType::f32, {kRows, moments}, fresh_seed(), 0.1)),
        v(HostTensor::random(DType::f32, {kRows, moments}, fresh_seed(), 0.1)),
        grad(HostTensor::random(p.gradient, {kRows, moments}, fresh_seed())),
        shadow(DType::bf16, {kRows, width}) {
    for (int64_t i = 0; i < v.size(); ++i) v.set(i, std::fabs(v.get(i)) + 1e-1);
  }
  std::vector<HostTensor*> all() { return {&weight, &m, &v, &grad, &shadow}; }
};

const Projector kProjectors[] = {
    {.width = 33, .random_rank = 5, .random = Projector::Random::sign, .seed = 14, .layer = 7},
    {.width = 33, .random_rank = 5, .random = Projector::Random::gaussian, .seed = 12, .layer = 5},
    {.width = 134, .random_rank = 33, .random = Projector::Random::gaussian, .seed = 12, .layer = 5},
    {.width = 64, .random_rank = 16, .random = Projector::Random::gaussian, .seed = 11, .layer = 4},
};

}  // namespace

TEST_CASE("adamw: a rank's rows on the GPU are those of the whole") {
  for (const Precision& p : kPrecisions) {
    for (const int64_t width : {1, 7, 33, 34, 64}) {
      INFO(dtype_name(p.weight) << " weight" << (p.shadow ? ", shadow" : "") << ", width " << width);
      State s(p, width, width);
      compare_rows(s.all(), [&](Exec& e, const Tensors& t, Rows rows) {
        ops::adamw(e, {{.weight = t[0],
                        .grad = t[3],
                        .lr = 0.01f,
                        .weight_decay = 0.1f,
                        .step = 3,
                        .rounding = rounding_of(p, t[4], rows.first * width)},
                       {},
                       t[1],
                       t[2]});
      });
    }
  }
}

TEST_CASE("projected_adam: a rank's rows on the GPU are those of the whole, fused and not") {
  for (const Precision& p : kPrecisions) {
    for (const Projector& projector : kProjectors) {
      INFO(dtype_name(p.weight) << " weight" << (p.shadow ? ", shadow" : "") << ", width " << projector.width
                                << ", kind " << static_cast<int>(projector.random));
      State s(p, projector.width, projector.rank());
      compare_rows(s.all(), [&](Exec& e, const Tensors& t, Rows rows) {
        ops::projected_adam(e, {{.weight = t[0],
                                 .low = {.factor = t[3], .projector = &projector},
                                 .lr = 0.01f,
                                 .weight_decay = 0.1f,
                                 .step = 3,
                                 .rounding = rounding_of(p, t[4], rows.first * projector.width)},
                                {},
                                t[1],
                                t[2]});
      });
    }
  }
}

TEST_CASE("low-rank gradients: a rank's rows on the GPU are those of the whole, and squares add up") {
  for (const Precision& p : kPrecisions) {
    for (const Projector& projector : kProjectors) {
      INFO(dtype_name(p.weight) << " weight, " << dtype_name(p.gradient) << " gradient, width " << projector.width
                                << ", kind " << static_cast<int>(projector.random));
      const int64_t width = projector.width, rank = projector.rank();
      State s(p, width, width);
      s.grad = HostTensor::random(p.gradient, {kRows, rank}, fresh_seed());
      HostTensor scale = HostTensor::random(DType::f32, {width}, fresh_seed());
      HostTensor row_term = HostTensor::random(p.gradient, {kRows}, fresh_seed());
      HostTensor column_term = HostTensor::random(DType::f32, {width}, fresh_seed());
      HostTensor squares(DType::f32, {1}), sketch(DType::f32, {kRows, rank}), means = s.m;
      auto tensors = s.all();
      tensors.insert(tensors.end(), {&scale, &row_term, &column_term, &squares, &sketch, &means});
      compare_rows(tensors, [&](Exec& e, const Tensors& t, Rows rows) {
        const LowRankGrad low = {
            .factor = t[3], .projector = &projector, .column_scale = t[5], .row_term = t[6], .column_term = t[7]};
        ops::adamw(
            e,
            {{.weight = t[0], .low = low, .lr = 0.01f, .step = 3, .rounding = rounding_of(p, t[4], rows.first * width)},
             {},
             t[1],
             t[2]});
        ops::expanded_sum_of_squares(e, t[8], low);
        ops::sum_of_squares(e, t[8], t[3]);
        ops::project(e, t[9], t[1], projector);
        ops::row_means(e, t[10]);
        ops::expand(e, {.out = t[10], .z = t[9], .accumulate = true}, projector);
      });
    }
  }
}

}  // namespace llmz::test
