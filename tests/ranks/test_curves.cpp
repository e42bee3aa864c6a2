// What a run computes does not depend on how many ranks compute it, nor on ZeRO, nor on how a step is cut into
// micro-batches: each step's loss and gradient norm and the validation losses against the run of one process.
#include <algorithm>

#include "catch.h"
#include "ranks/methods.h"
#include "ranks/mpi_run.h"

using namespace llmz::testing;

namespace {

struct Method {
  std::string name;
  Settings settings;
  double tolerance;
  bool in_full = false;  ///< all divisions
};

/// What a window more in a step changes, in tolerances: they are tight.
constexpr double kFar = 50;

/// Refreshes at steps 1, 6 and 11; PRAC's at 1 and 7, of the random part alone at 4 and 10.
std::vector<Method> methods() {
  return {
      {"full rank", {}, kSums, true},
      {"CompAct", compact(5), kSums, true},
      {"PRAC", prac(6, 3), kSums, true},
      {"projected Adam", projected_adam(5), kSums, true},
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

  Curve run(const Division& d, const Settings& more = {}) {
    Settings settings = {"train.steps=12",
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
