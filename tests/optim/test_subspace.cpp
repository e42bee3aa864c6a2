// Moments in the subspace: what becomes of them when the projector changes, and who may have them.
#include <cmath>

#include "catch.h"
#include "llmz/core/random.h"
#include "llmz/ops/projector.h"
#include "llmz/optim/optimizer.h"
#include "ops/fixture.h"

using namespace llmz;
using namespace llmz::optim;

namespace {

constexpr int64_t kRows = 6, kWidth = 20;

/// One weight [6,20] with a low-rank gradient through a sign projector, planned and allocated with its optimizer.
struct Setup {
  Projector projector{.width = kWidth, .random = Projector::Random::sign, .seed = 11, .layer = 2};
  Parameter parameter;
  std::unique_ptr<Memory> memory;
  std::unique_ptr<Optimizer> optimizer;

  Setup(AtRefresh at_refresh, int64_t rank) {
    projector.random_rank = rank;
    projector.changed = true;
    OptimizerConfig config;
    config.moments = Moments::subspace;
    config.subspace.at_refresh = at_refresh;
    config.weight_decay = 0;
    Memory recorder;
    build(recorder, config);
    run(recorder, 1);
    optimizer.reset();
    memory = std::make_unique<Memory>(recorder.finish());
    build(*memory, config);
    Tensor g = parameter.grad.low.factor;
    RandomStream(1, Purpose::test).fill_normal(values.data(), 0, values.size(), 1.0f);
    for (int64_t i = 0; i < g.numel(); ++i) g.as<double>()[i] = static_cast<double>(values[static_cast<size_t>(i)]);
  }

  void run(Memory& m, int64_t step) {
    Exec exec(m);
    {
      const ProgramScope program(m, "refresh");
      optimizer->refresh(exec);
    }
    const ProgramScope program(m, "update");
    optimizer->step(exec, step, 0.01, {});
  }
  Tensor state(const std::string& slot) const {
    for (const auto& s : optimizer->states()) {
      if (s.slot == slot) return s.tensor;
    }
    return {};
  }
  std::vector<double> values_of(const Tensor& t) const { return {t.as<double>(), t.as<double>() + t.numel()}; }
  /// A moment seen from full space: M·Pᵀ.
  std::vector<double> expanded(const Tensor& moment) const {
    std::vector<double> full(kRows * kWidth);
    test::run_op([&](Exec& e) {
      ops::expand(e, {.out = Tensor(full.data(), DType::f64, {kRows, kWidth}), .z = moment}, projector);
    });
    return full;
  }
  void renew_projector() {
    projector.previous_seed = projector.seed;
    projector.seed = 12;
    projector.changed = true;
    projector.age = 0;
  }
  void refresh_only() {
    Exec exec(*memory);
    const ProgramScope program(*memory, "refresh");
    optimizer->refresh(exec);
  }

  std::vector<float> values = std::vector<float>(kRows * kWidth);

 private:
  void build(Memory& m, const OptimizerConfig& config) {
    parameter.name = "w";
    parameter.weight = m.persistent("w", Category::weights, {kRows, kWidth}, DType::f64);
    const Tensor factor = m.persistent("w.grad", Category::gradients, {kRows, projector.rank()}, DType::f64);
    parameter.grad.low = {.factor = factor, .projector = &projector};
    optimizer = make_optimizer(config, {&parameter}, m);
  }
};

}  // namespace

TEST_CASE("keep leaves subspace moments as they are, reset clears them") {
  for (const AtRefresh policy : {AtRefresh::keep, AtRefresh::reset}) {
    Setup s(policy, 5);
    CHECK(s.optimizer->refreshes() == (policy == AtRefresh::reset));
    s.run(*s.memory, 1);
    const auto before = s.values_of(s.state("exp_avg"));
    REQUIRE(std::abs(before[0]) > 0);
    s.projector.changed = false;
    s.refresh_only();
    CHECK(s.values_of(s.state("exp_avg")) == before);
    s.renew_projector();
    s.refresh_only();
    const auto after = s.values_of(s.state("exp_avg"));
    if (policy == AtRefresh::keep) {
      CHECK(after == before);
    } else {
      for (double m : after) CHECK(m == 0);
      for (double v : s.values_of(s.state("exp_avg_sq"))) CHECK(v == 0);
    }
  }
}

TEST_CASE("reset counts the steps of the bias correction anew") {
  Setup fresh(AtRefresh::reset, 5), used(AtRefresh::reset, 5);
  fresh.run(*fresh.memory, 1);
  const auto first_update = fresh.values_of(fresh.parameter.weight);
  for (int64_t step = 1; step <= 3; ++step) {
    used.projector.changed = step == 1;
    used.projector.age = step - 1;
    used.run(*used.memory, step);
  }
  const auto before = used.values_of(used.parameter.weight);
  used.projector.previous_seed = used.projector.seed;  // the same projector again, so that updates can be compared
  used.projector.changed = true;
  used.projector.age = 0;
  used.run(*used.memory, 4);
  const auto after = used.values_of(used.parameter.weight);
  for (size_t i = 0; i < after.size(); ++i) CHECK(after[i] - before[i] == Approx(first_update[i]).margin(1e-12));
}

TEST_CASE("rotate carries the first moment through full space") {
  Setup whole(AtRefresh::rotate, kWidth);  // of full rank, where nothing is lost
  whole.run(*whole.memory, 1);
  const auto before = whole.expanded(whole.state("exp_avg"));
  const auto inside = whole.values_of(whole.state("exp_avg"));
  whole.renew_projector();
  whole.refresh_only();
  const auto after = whole.expanded(whole.state("exp_avg"));
  for (size_t i = 0; i < after.size(); ++i) CHECK(after[i] == Approx(before[i]).margin(1e-12));
  CHECK(whole.values_of(whole.state("exp_avg")) != inside);

  Setup part(AtRefresh::rotate, 5);
  part.run(*part.memory, 1);
  const auto squares = part.values_of(part.state("exp_avg_sq"));
  part.renew_projector();
  part.refresh_only();
  const auto means = part.values_of(part.state("exp_avg_sq"));
  for (int64_t i = 0; i < kRows; ++i) {
    double mean = 0;
    for (int64_t j = 0; j < 5; ++j) mean += squares[static_cast<size_t>(i * 5 + j)] / 5;
    for (int64_t j = 0; j < 5; ++j) CHECK(means[static_cast<size_t>(i * 5 + j)] == Approx(mean));
  }
}
