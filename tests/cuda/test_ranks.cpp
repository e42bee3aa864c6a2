// Training over NCCL: two processes of llmz, each with a GPU of its own, that meet over TCP. Needs two GPUs, real or
// emulated.
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "catch.h"
#include "cli/tiny_run.h"
#include "dist/forked.h"
#include "llmz/core/system.h"
#include "llmz/core/version.h"
#include "llmz/io/files.h"
#include "ranks/curve.h"
#include "ranks/methods.h"

using namespace llmz;
using namespace llmz::testing;
using namespace std::chrono_literals;

namespace {

constexpr int kRanks = 2;
constexpr int kSteps = 5;

/// Says why where this cannot run.
bool two_gpus_and_nccl() {
  if (cuda_info().emulated) setenv("LLMZ_EMULATED_GPUS", "2", 1);
  bool nccl = false;
  for (const BuildComponent& c : build_info().components) nccl = nccl || (c.name == "NCCL" && c.on);
  const bool enough = nccl && (cuda_info().emulated || cuda_info().devices.size() >= kRanks);
  if (!enough) WARN("not run: it needs NCCL and two GPUs");
  return enough;
}

/// Windows have more tokens than PRAC asks for directions (19 of the MLP's 64 features). Fewer tokens T span only T
/// directions: XᵀX has rank T, the other 19 − T are whatever rounding leaves of them, as good as any for the method,
/// but other ones after the last bit of a weight has changed. Measured with 16 tokens on the CPU: the gradient's norm
/// parts by 7e-5 between one rank and two, and by 3e-4 on one rank whose sums run in another order; with 20 tokens, or
/// with 12 directions of 16 tokens, by 2e-7, as everywhere else.
Settings run_settings(const Settings& method, const std::string& out, int zero) {
  Settings settings = {"train.device=cuda",    fmt::format("train.steps={}", kSteps),
                       "train.micro_batch=1",  "train.global_batch=4",
                       "train.sequence=64",    "train.eval_every=5",
                       "train.eval_batches=2", "output.save_every=0",
                       "output.path=" + out,   fmt::format("distributed.zero_stage={}", zero)};
  settings.insert(settings.end(), method.begin(), method.end());
  return settings;
}

std::vector<std::unique_ptr<Process>> start(const TinyRun& place, const Settings& settings) {
  const std::string meeting = fmt::format("tcp:127.0.0.1:{}", free_port());
  std::vector<std::unique_ptr<Process>> ranks;
  for (int r = 0; r < kRanks; ++r) {
    ranks.push_back(std::make_unique<Process>(
        place.folder(), train_arguments(settings, {"--overwrite", "--rendezvous", meeting, "--rank", std::to_string(r),
                                                   "--ranks", std::to_string(kRanks)})));
  }
  return ranks;
}

}  // namespace

TEST_CASE("two GPUs train as one does", "[cuda][ranks]") {
  if (!two_gpus_and_nccl()) return;
  const TinyRun place(/*in_memory=*/true);
  struct Method {
    const char* name;
    Settings settings;
  };
  for (const auto& [name, settings] :
       {Method{"full rank", {}}, {"CompAct", {"preset=compact_n4"}}, {"PRAC", prac(2)}}) {
    const Outcome alone = place.llmz(train_arguments(run_settings(settings, "alone", 0), {"--overwrite"}));
    INFO(alone.err);
    REQUIRE(alone.exit_code == 0);
    for (const int zero : {0, 1}) {
      INFO(name << ", ZeRO " << zero);
      for (const auto& rank : start(place, run_settings(settings, "shared", zero))) {
        const Outcome outcome = rank->wait();
        INFO(outcome.err);
        REQUIRE(outcome.exit_code == 0);
      }
      CHECK(distance(read_curve(place / "alone"), read_curve(place / "shared")) < kSums);
    }
  }
}

TEST_CASE("a GPU's process is killed: the other ends within ten seconds and names it", "[cuda][ranks]") {
  if (!two_gpus_and_nccl()) return;
  const TinyRun place(/*in_memory=*/true);
  for (const int victim : {0, 1}) {
    INFO("rank " << victim);
    fs::remove_all(place / "run");
    const auto ranks = start(place, run_settings({"train.steps=100000"}, "run", 1));
    const auto has_begun = [&] { return fs::exists(place / "run/metrics.jsonl"); };
    while (ranks[0]->running() && !has_begun()) std::this_thread::sleep_for(5ms);
    REQUIRE(ranks[0]->running());
    ranks[static_cast<size_t>(victim)]->send(SIGKILL);
    const auto killed = std::chrono::steady_clock::now();
    const Outcome other = ranks[static_cast<size_t>(1 - victim)]->wait();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - killed;
    WARN("rank " << victim << " killed: the other has ended after " << seconds.count() << " s");
    INFO(other.err);
    CHECK(seconds.count() < 10);
    CHECK(other.exit_code == 1);
    CHECK_THAT(other.last_error_line(), contains("llmz: "));
    CHECK_THAT(other.last_error_line(), contains(fmt::format("rank {}", victim)));
  }
}
