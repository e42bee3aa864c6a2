// What a run computes does not depend on how many ranks compute it, nor on ZeRO, nor on how a step is cut into
// micro-batches: each step's loss and gradient norm and the validation losses against the run of one process.
#include <algorithm>

#include "catch.h"
#include "ranks/mpi_run.h"

using namespace llmz::testing;

namespace {

struct Method {
  std::string name;
  std::vector<std::string> settings;
  double tolerance;
  bool in_full = false;  ///< all divisions
};

/// Ranks add the same fp32 numbers in another order, by which a gradient changes by a few times 2⁻²⁴ = 6e-8 of itself;
/// weights follow, and twelve steps of AdamW, which divides by the gradients' size, let it grow. Measured: 1e-7.
constexpr double kSums = 2e-6;
/// A number of which another sum falls on the other side of a rounding boundary: the code, of 4 or 8 bits, is then a
/// whole level off, in one of thousands of numbers. Measured: up to 3e-6.
constexpr double kCodes = 2e-5;
/// The same with bf16's 8 bits, in all that is multiplied. Measured: 5e-5.
constexpr double kHalf = 5e-4;
/// What a window more in a step changes, in tolerances: they are tight.
constexpr double kFar = 50;

/// Refreshes at steps 1, 6 and 11, and at steps 4, 7, 10 of what has a period of its own.
const std::string kSketches[] = {"qkv_input", "gate_up_input", "norm", "attention_output", "gate_up", "down_input"};

std::vector<std::string> prac() {
  std::vector<std::string> settings = {"preset=prac"};
  for (const std::string& role : kSketches) {
    settings.push_back(fmt::format("activations.{}.refresh=6", role));
    settings.push_back(fmt::format("activations.{}.random_refresh=3", role));
  }
  return settings;
}

std::vector<std::string> compact() {
  std::vector<std::string> settings = {"preset=compact_n4"};
  for (const char* role : {"qkv_input", "gate_up_input", "down_input"}) {
    settings.push_back(fmt::format("activations.{}.refresh=5", role));
  }
  return settings;
}

std::vector<Method> methods() {
  return {
      {"full rank", {}, kSums, true},
      {"CompAct", compact(), kSums, true},
      {"PRAC", prac(), kSums, true},
      {"projected Adam",
       {"activations.norm.codec=store", "weight_gradient.form=low_rank", "weight_gradient.projector=principal",
        "weight_gradient.refresh=5", "optimizer.moments=subspace"},
       kSums,
       true},
      {"lean", {"preset=lean"}, kCodes},
      // 47 and 91 rows are no multiple of 2 or 4: ZeRO pads.
      {"GPT-2", {"model.architecture=gpt2", "model.intermediate=91", "optimizer.decay_on.biases=true"}, kSums},
      {"bf16 with master weights", {"precision=bf16"}, kHalf},
      {"bf16 rounded at random", {"precision=bf16_stochastic"}, kHalf},
  };
}

/// Windows of a step. 4 ranks with micro-batches of 1 accumulate twice, 2 ranks four times.
constexpr int kGlobalBatch = 8;

struct Division {
  int ranks, zero, micro_batch;
};

class Runs {
 public:
  explicit Runs(const TinyRun& place, Method method) : place_(place), method_(std::move(method)) {}

  Curve run(const Division& d, const std::vector<std::string>& more = {}) {
    std::vector<std::string> settings = {"train.steps=12",
                                         "train.eval_every=6",
                                         "train.eval_batches=0",
                                         "output.save_every=0",
                                         "output.save_best=false",
                                         "optimizer.lr=3e-3",
                                         "output.path=" + fmt::format("run{}", ++count_),
                                         fmt::format("train.global_batch={}", kGlobalBatch),
                                         fmt::format("train.micro_batch={}", d.micro_batch),
                                         fmt::format("distributed.zero_stage={}", d.zero)};
    settings.insert(settings.end(), method_.settings.begin(), method_.settings.end());
    settings.insert(settings.end(), more.begin(), more.end());
    const Outcome outcome = run_on(d.ranks, place_, train_arguments(settings, {"--overwrite"}));
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    return read_curve(place_ / fmt::format("run{}", count_));
  }

  /// `divisions`, all with micro-batches of so many windows, against one process.
  void check_divisions(int micro_batch, const std::vector<Division>& divisions) {
    const Curve alone = run({.ranks = 1, .zero = 0, .micro_batch = micro_batch});
    REQUIRE(alone.loss.size() == 12);
    REQUIRE(alone.validation.size() == 2);
    for (const Division& d : divisions) {
      const double found = distance(alone, run(d));
      INFO(method_.name << ": " << d.ranks << " ranks, ZeRO " << d.zero << ", micro-batches of " << d.micro_batch);
      CHECK(found < method_.tolerance);
      largest_ = std::max(largest_, found);
    }
    // A window more in a step must be seen.
    nearest_ =
        std::min(nearest_, distance(alone, run({1, 0, 1}, {fmt::format("train.global_batch={}", kGlobalBatch + 1)})));
    CHECK(nearest_ > kFar * method_.tolerance);
  }

  void report() const {
    WARN(method_.name << ": largest relative difference " << largest_ << "; with a ninth window " << nearest_);
  }

 private:
  const TinyRun& place_;
  const Method method_;
  int count_ = 0;
  double largest_ = 0, nearest_ = 1;
};

}  // namespace

TEST_CASE("losses do not depend on ranks, ZeRO and accumulation", "[curves]") {
  const TinyRun place(/*in_memory=*/true);
  for (const Method& method : methods()) {
    Runs runs(place, method);
    runs.check_divisions(2, {{2, 1, 2}, {4, 0, 2}});
    // Another micro-batch is another run where it is what a refresh looks at, on one rank as on many.
    if (method.in_full) runs.check_divisions(1, {{2, 0, 1}, {4, 1, 1}});
    runs.report();
  }
}
