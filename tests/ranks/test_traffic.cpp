// Bytes on the wire: what a run counts is what was planned, and what MPI itself has seen go out.
#include <cmath>

#include "catch.h"
#include "llmz/io/files.h"
#include "llmz/run/config_io.h"
#include "llmz/run/placement.h"
#include "ranks/methods.h"
#include "ranks/mpi_run.h"

using namespace llmz;
using namespace llmz::testing;

namespace {

/// Steps at which everything that is drawn or measured anew falls due: 1, 5, 9.
constexpr int kPeriod = 4;

struct Method {
  const char* name;
  Settings settings;
  bool measured;  ///< whether a refresh shares what one rank has measured; else ranks draw the same numbers
};

std::vector<Method> methods() {
  return {{"full rank", {}, false},
          {"CompAct", compact(kPeriod), false},
          {"PRAC", prac(kPeriod), true},
          {"projected Adam", projected_adam(kPeriod), true},
          {"lean", {"preset=lean"}, false}};
}

/// Runs that differ in nothing but their number of steps.
Settings run_settings(const Settings& method, int zero, int steps) {
  Settings settings = {fmt::format("train.steps={}", steps),
                       "train.micro_batch=1",
                       "train.global_batch=6",
                       "train.eval_every=0",
                       "train.eval_batches=1",
                       "output.save_every=0",
                       fmt::format("distributed.zero_stage={}", zero)};
  settings.insert(settings.end(), method.begin(), method.end());
  return settings;
}

engine::StepTraffic planned(const std::string& config, const Settings& settings, int ranks) {
  const run::RunConfig run = run::load_run_config(config, settings);
  return engine::Engine::traffic_per_step(run::engine_options(run, {}, {.rank = 0, .size = ranks}));
}

/// Bytes that ranks sent to one another, by Open MPI's own count: lines "I from to N bytes M msgs sent ...".
double seen_by_mpi(const fs::path& folder, const std::string& name, int ranks) {
  double bytes = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    std::istringstream in(io::read_text(folder / fmt::format("{}.{}.prof", name, rank)));
    for (std::string line; std::getline(in, line);) {
      std::istringstream words(line);
      std::string kind, from, to;
      double count = 0;
      if (words >> kind >> from >> to >> count && (kind == "I" || kind == "E")) bytes += count;
    }
  }
  return bytes;
}

}  // namespace

TEST_CASE("each step sends the bytes that were planned", "[traffic]") {
  const TinyRun place(/*in_memory=*/true);
  constexpr int kSteps = 6;
  for (const Method& method : methods()) {
    for (const int ranks : {2, 3}) {
      const int zero = ranks == 2 ? 0 : 1;
      INFO(method.name << ", " << ranks << " ranks, ZeRO " << zero);
      const Settings settings = run_settings(method.settings, zero, kSteps);
      const Outcome outcome = run_on(ranks, place, train_arguments(settings, {"--overwrite"}));
      INFO(outcome.err);
      REQUIRE(outcome.exit_code == 0);
      const engine::StepTraffic plan = planned((place / "tiny.json").string(), settings, ranks);
      CHECK((plan.refresh.sent(ranks) > 0) == method.measured);
      const Curve curve = read_curve(place / "run");
      REQUIRE(curve.sent_bytes.size() == kSteps);
      for (const auto& [step, bytes] : curve.sent_bytes) {
        INFO("step " << step);
        CHECK(bytes == (plan.step + (step % kPeriod == 1 ? plan.refresh : Traffic{})).sent(ranks));
      }
    }
  }
}

TEST_CASE("the bytes counted are those that went through MPI", "[traffic]") {
  if (!LLMZ_MPI_MONITORING) {
    WARN("skipped: this MPI has no component that counts");
    return;
  }
  const TinyRun place(/*in_memory=*/true);
  constexpr int kRanks = 2;
  constexpr int kFew = 2, kMore = 10;
  for (const Method& method : methods()) {
    for (const int zero : {0, 1}) {
      INFO(method.name << ", ZeRO " << zero);
      const auto seen = [&](int steps) {
        const std::string name = fmt::format("prof{}", steps);
        const Outcome outcome =
            run_on(kRanks, place, train_arguments(run_settings(method.settings, zero, steps), {"--overwrite"}),
                   {"--mca", "pml_monitoring_enable", "2", "--mca", "pml_monitoring_enable_output", "3", "--mca",
                    "pml_monitoring_filename", (place / name).string()});
        INFO(outcome.err);
        REQUIRE(outcome.exit_code == 0);
        return seen_by_mpi(place.folder(), name, kRanks);
      };
      // The difference of two runs: what starting and ending one sends is the same in both.
      const double few = seen(kFew), more = seen(kMore) - few;
      double counted = 0;
      for (const auto& [step, bytes] : read_curve(place / "run").sent_bytes) {
        if (step > kFew) counted += kRanks * bytes;
      }
      REQUIRE(counted > 0);
      // Beside tensors, a step agrees on whether a signal came: 8 bytes from each rank. The last line is some longer.
      const double agreed = (kMore - kFew) * kRanks * 8.0;
      CHECK(more >= counted + agreed);
      CHECK(more <= counted + agreed + 64);
    }
  }
}

TEST_CASE("CompAct's gradients of linear layers are a quarter of the dense ones", "[traffic]") {
  // The preset is the paper's, which leaves the output projection alone: a quarter of all others. With it, of all.
  const Settings preset = {"preset=compact_n4"};
  const Settings all = {"preset=compact_n4",
                        R"(activations.attention_output={"codec": "sketch", "projector": "gaussian", "rank": 0.25})"};
  for (const char* model : {"llama-60m-c4", "llama-130m-c4", "llama-350m-c4", "llama-1b-c4"}) {
    INFO(model);
    const std::string config = fmt::format("{}/{}.json", LLMZ_CONFIGS, model);
    const model::ModelConfig shape = run::load_run_config(config, {}).model;
    const double in = static_cast<double>(shape.hidden), out = static_cast<double>(shape.intermediate);
    const double blocks = static_cast<double>(shape.layers) * 4;  // bytes of an fp32 number of every block
    // A code has whole numbers: a quarter of 5461 is 1365.
    const double quarter =
        blocks * (3 * in * std::floor(in / 4) + 2 * out * std::floor(in / 4) + in * std::floor(out / 4));
    const engine::StepTraffic dense = planned(config, {}, 8);
    CHECK(dense.linear == dense.dense_linear);
    for (const Settings& settings : {preset, all}) {
      const engine::StepTraffic low_rank = planned(config, settings, 8);
      CHECK(low_rank.dense_linear == dense.linear);
      const bool is_all = settings == all;
      const double projections = blocks * in * (is_all ? in / 4 : in);
      CHECK(low_rank.linear == quarter + projections);
      if (is_all) CHECK(low_rank.linear / dense.linear == Approx(0.25).epsilon(1e-4));
      // In nothing else do the steps differ.
      CHECK(dense.step[Traffic::all_reduce] - low_rank.step[Traffic::all_reduce] == dense.linear - low_rank.linear);
    }
  }
}
