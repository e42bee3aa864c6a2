// An optimizer on the rows that each rank owns makes the weights that one on the whole makes.
#include <cmath>

#include "catch.h"
#include "llmz/core/random.h"
#include "llmz/optim/optimizer.h"
#include "ops/reference.h"
#include "ops/thread_ranks.h"

using namespace llmz;
using namespace llmz::optim;
using namespace llmz::test;

namespace {

constexpr int64_t kRows = 7, kWidth = 33, kRank = 3;
constexpr int kSteps = 4, kRefresh = 3;  // the step with a new projector

struct Method {
  OptimizerConfig optimizer;
  StatePrecision precision;
  bool low_rank = false;
};

/// A rank's part of a bf16 matrix [7,33], and after it a gain [33] that all have whole, with their optimizer.
class Training {
 public:
  Training(const Method& method, Communicator* ranks) : method_(method), ranks_(ranks) {
    const int64_t parts = ranks == nullptr ? 1 : ranks->size();
    rows_ = (kRows + parts - 1) / parts;
    if (ranks != nullptr) matrix_.shard = {rows_ * ranks->rank(), kRows};
    DryCommunicator dry(ranks == nullptr ? 0 : ranks->rank(), static_cast<int>(parts));
    Memory recorder;
    build(recorder);
    run(recorder, ranks == nullptr ? nullptr : &dry, 1);
    optimizer_.reset();
    memory_ = std::make_unique<Memory>(recorder.finish());
    build(*memory_);
  }

  /// `weights`: those of the whole, from which these rows are taken and to which they return.
  void train(HostTensor& weights) {
    copy_rows(weights, matrix_.weight, /*back=*/false);
    Exec exec(*memory_);
    optimizer_->weights_changed(exec);
    for (int step = 1; step <= kSteps; ++step) {
      HostTensor factor = HostTensor::random(DType::f32, {kRows, kRank}, static_cast<unsigned>(step), 0.1);
      HostTensor dense = HostTensor::random(DType::f32, {kRows, kWidth}, static_cast<unsigned>(step), 0.1);
      copy_rows(method_.low_rank ? factor : dense, matrix_.grad.accumulator(), /*back=*/false);
      projector_.changed = step == kRefresh;
      if (projector_.changed) projector_.previous_seed = projector_.seed++;
      projector_.age = (step - 1) % (kRefresh - 1);
      run(*memory_, ranks_, step);
    }
    copy_rows(weights, matrix_.weight, /*back=*/true);
  }

 private:
  void build(Memory& m) {
    matrix_.name = "matrix";
    matrix_.weight = m.persistent("weight", Category::weights, {rows_, kWidth}, DType::bf16);
    if (method_.low_rank) {
      matrix_.grad.low.factor = m.persistent("factor", Category::gradients, {rows_, kRank}, DType::f32);
      matrix_.grad.low.projector = &projector_;
    } else {
      matrix_.grad.dense = m.persistent("grad", Category::gradients, {rows_, kWidth}, DType::f32);
    }
    gain_.name = "gain";
    gain_.kind = ParamKind::gain;
    gain_.weight = m.persistent("gain", Category::weights, {kWidth}, DType::bf16);
    gain_.grad.dense = m.persistent("gain.grad", Category::gradients, {kWidth}, DType::f32);
    optimizer_ = make_optimizer(method_.optimizer, {&matrix_, &gain_}, m, method_.precision);
  }

  void run(Memory& m, Communicator* ranks, int64_t step) {
    Exec exec(m);
    exec.ranks = ranks;
    {
      const ProgramScope program(m, "refresh");
      if (m.recording()) projector_.changed = true;  // all that it may need
      optimizer_->refresh(exec);
    }
    const ProgramScope program(m, "update");
    optimizer_->step(exec, step, 0.01, {});
  }

  void copy_rows(HostTensor& whole, const Tensor& part, bool back) const {
    const int64_t count = std::clamp<int64_t>(kRows - matrix_.shard.first, 0, rows_);
    const Tensor from = whole.tensor().slice(0, std::min(matrix_.shard.first, kRows), count);
    std::memcpy(back ? from.data : part.data, back ? part.data : from.data, from.bytes());
  }

  Method method_;
  Communicator* ranks_;
  int64_t rows_ = 0;
  Projector projector_{
      .width = kWidth, .random_rank = kRank, .random = Projector::Random::sign, .seed = 11, .layer = 2};
  Parameter matrix_, gain_;
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<Optimizer> optimizer_;
};

HostTensor weights_before() { return HostTensor::random(DType::bf16, {kRows, kWidth}, 99); }

HostTensor trained_alone(const Method& method) {
  HostTensor weights = weights_before();
  Training(method, nullptr).train(weights);
  return weights;
}

HostTensor trained_on(int size, const Method& method) {
  HostTensor weights = weights_before();
  run_ranks(size, [&](Communicator& ranks) { Training(method, &ranks).train(weights); });
  return weights;
}

}  // namespace

TEST_CASE("moments of a rank's rows, and its random numbers, are those of the whole") {
  for (const Bf16Weights rounding : bf16_weights().values()) {
    for (const Moments moments : {Moments::full, Moments::subspace}) {
      for (const AtRefresh at_refresh : refresh_policies().values()) {
        for (const bool low_rank : {false, true}) {
          if (moments == Moments::subspace ? !low_rank : at_refresh != AtRefresh::keep) continue;
          INFO(bf16_weights().name(rounding)
               << ", " << moment_kinds().name(moments) << ", " << refresh_policies().name(at_refresh)
               << ", low-rank gradient " << low_rank);
          Method method;
          method.optimizer.moments = moments;
          method.optimizer.subspace.at_refresh = at_refresh;
          method.precision.weights = rounding;
          method.low_rank = low_rank;
          const HostTensor alone = trained_alone(method);
          REQUIRE(!alone.same_bits(weights_before()));
          for (int size : {1, 2, 3, 5, 8}) CHECK(trained_on(size, method).same_bits(alone));
        }
      }
    }
  }
}

TEST_CASE("factored moments over all ranks are those of the whole") {
  for (const Bf16Weights rounding : {Bf16Weights::master, Bf16Weights::stochastic}) {
    for (const int64_t bits : {32, 8}) {
      for (const bool low_rank : {false, true}) {
        INFO(bf16_weights().name(rounding) << ", " << bits << " bits, low-rank gradient " << low_rank);
        Method method;
        method.optimizer.moments = Moments::factored;
        method.optimizer.first_moment_bits = bits;
        method.precision.weights = rounding;
        method.low_rank = low_rank;
        const HostTensor alone = trained_alone(method);
        for (int size : {1, 2, 3, 5, 8}) {
          const HostTensor spread = trained_on(size, method);
          // A bf16 is the next one where fp32's last bits, in which the sums over ranks differ, decide: some 20
          // roundings of 2^-24 beside a spacing of 2^-8, that is one of 3000 elements a step.
          int64_t others = 0;
          for (int64_t i = 0; i < alone.size(); ++i) others += alone.get(i) != spread.get(i);
          CHECK(others <= 1);
          require_close(spread, alone.values(), 1e-6, 2 * test::rounding(DType::bf16));
        }
      }
    }
  }
}
