// A checkpoint knows no ranks: what two of them saved goes on with any number, with and without ZeRO.
#include "catch.h"
#include "llmz/io/files.h"
#include "ranks/methods.h"
#include "ranks/mpi_run.h"

using namespace llmz::testing;
namespace io = llmz::io;

namespace {

constexpr int kSaved = 6, kSteps = 12;

struct Method {
  const char* name;
  Settings settings;
  double tolerance;
};

std::vector<Method> methods() {
  return {{"full rank", {}, kSums},
          {"CompAct", {"preset=compact_n4"}, kSums},
          // Refreshes on both sides of the checkpoint, the last one before it still in use.
          {"PRAC", prac(4), kSums},
          {"lean", {"preset=lean"}, kCodes},
          {"bf16 rounded at random", {"precision=bf16_stochastic"}, kHalf}};
}

/// 12 windows a step: 2, 1, 3 and 4 ranks share them.
Settings run_settings(const Method& method, const std::string& out, int zero) {
  Settings settings = {fmt::format("train.steps={}", kSteps),
                       "train.micro_batch=1",
                       "train.global_batch=12",
                       "train.eval_every=6",
                       "output.save_best=false",
                       fmt::format("output.save_every={}", kSaved),
                       fmt::format("output.keep_every={}", kSaved),
                       "optimizer.lr=3e-3",
                       "output.path=" + out,
                       fmt::format("distributed.zero_stage={}", zero)};
  settings.insert(settings.end(), method.settings.begin(), method.settings.end());
  return settings;
}

/// As the run in `from` was when it had saved for the first time.
void copy_first_half(const fs::path& from, const fs::path& to) {
  fs::remove_all(to);
  fs::copy(from, to, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  fs::remove_all(to / "checkpoints" / fmt::format("step_{:08}", kSteps));
  fs::remove(to / "checkpoints" / "last");
}

std::string last_file(const fs::path& run, const std::string& name) {
  return io::read_text(run / "checkpoints" / "last" / name);
}

}  // namespace

TEST_CASE("saved by two ranks, a run goes on with 1, 2, 3 and 4", "[checkpoints]") {
  const TinyRun place(/*in_memory=*/true);
  for (const Method& method : methods()) {
    for (const int zero : {0, 1}) {
      const Outcome whole = run_on(2, place, train_arguments(run_settings(method, "whole", zero), {"--overwrite"}));
      INFO(whole.err);
      REQUIRE(whole.exit_code == 0);
      const Curve expected = read_curve(place / "whole");
      REQUIRE(expected.loss.size() == kSteps);
      for (const int ranks : {1, 2, 3, 4}) {
        // With another number of ranks also from ZeRO-1 to none, and back.
        const int stage = ranks == 2 ? zero : 1 - zero;
        INFO(method.name << ": ZeRO " << zero << " on 2 ranks, then ZeRO " << stage << " on " << ranks);
        copy_first_half(place / "whole", place / "resumed");
        const Outcome resumed =
            run_on(ranks, place, train_arguments(run_settings(method, "resumed", stage), {"--resume"}));
        INFO(resumed.err);
        REQUIRE(resumed.exit_code == 0);
        CHECK_THAT(resumed.err, contains(fmt::format("resumed after step {}", kSaved)));
        CHECK(distance(expected, read_curve(place / "resumed")) < method.tolerance);
        CHECK(tensors_of(place / "resumed/checkpoints/last/optimizer.safetensors") ==
              tensors_of(place / "whole/checkpoints/last/optimizer.safetensors"));
        if (ranks != 2) continue;
        CHECK(repeatable_metrics(place / "resumed/metrics.jsonl") == repeatable_metrics(place / "whole/metrics.jsonl"));
        for (const char* name : {"model.safetensors", "optimizer.safetensors"}) {
          CAPTURE(name);
          CHECK((last_file(place / "resumed", name) == last_file(place / "whole", name)));
        }
      }
    }
  }
}
