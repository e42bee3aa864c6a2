// A rank that dies, stops or fails: the others follow within seconds, one message says why, and nothing is lost.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "catch.h"
#include "llmz/io/checkpoint.h"
#include "llmz/io/files.h"
#include "ranks/mpi_run.h"

using namespace llmz::testing;
namespace io = llmz::io;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

constexpr int kRanks = 3;
constexpr int kSteps = 120;

std::vector<std::string> arguments(const std::string& out, bool resume, std::vector<std::string> settings = {}) {
  settings.insert(settings.end(), {fmt::format("train.steps={}", kSteps), "output.path=" + out, "output.save_every=10",
                                   "train.micro_batch=1", "train.global_batch=6", "train.eval_every=0",
                                   "train.eval_batches=1", "distributed.zero_stage=1", "output.save_best=false"});
  return train_arguments(settings, {resume ? "--resume" : "--overwrite"});
}

/// So many lines of metrics, or the run has ended.
bool wait_for_steps(Process& mpirun, const fs::path& run, int steps) {
  const auto lines = [&] {
    std::error_code none;
    if (!fs::exists(run / "metrics.jsonl", none)) return std::ptrdiff_t{0};
    const std::string text = io::read_text(run / "metrics.jsonl");
    return std::count(text.begin(), text.end(), '\n');
  };
  while (mpirun.running() && lines() < steps) std::this_thread::sleep_for(2ms);
  return mpirun.running();
}

bool alive(const std::map<int, pid_t>& processes) {
  return std::any_of(processes.begin(), processes.end(), [](const auto& p) { return ::kill(p.second, 0) == 0; });
}

std::vector<std::string> same_run(const fs::path& run) { return repeatable_metrics(run / "metrics.jsonl"); }

}  // namespace

TEST_CASE("one rank is killed: the others end within ten seconds, and the run goes on from its last checkpoint",
          "[failures]") {
  if (!is_open_mpi()) {
    WARN("skipped: it looks for the processes of Open MPI's mpirun");
    return;
  }
  const TinyRun place(/*in_memory=*/true);
  REQUIRE(run_on(kRanks, place, arguments("undisturbed", false)).exit_code == 0);
  for (const int victim : {0, 2}) {
    INFO("rank " << victim);
    fs::remove_all(place / "run");
    Process mpirun(place.folder(), llmz_on_ranks(kRanks, arguments("run", false)), llmz::testing::mpirun());
    REQUIRE(wait_for_steps(mpirun, place / "run", 15));
    const auto processes = rank_processes(mpirun);
    REQUIRE(processes.size() == kRanks);
    ::kill(processes.at(victim), SIGKILL);
    const auto killed = Clock::now();
    const Outcome outcome = mpirun.wait();
    while (alive(processes) && Clock::now() - killed < 20s) std::this_thread::sleep_for(5ms);
    const std::chrono::duration<double> seconds = Clock::now() - killed;
    WARN("rank " << victim << " killed: all have ended after " << seconds.count() << " s");
    INFO(outcome.err);
    CHECK(seconds.count() < 10);
    CHECK(outcome.exit_code != 0);
    // A killed process says nothing; its launcher does. Others have at most noticed that it is gone.
    CHECK_THAT(outcome.err, contains(fmt::format("process rank {}", victim)));
    CHECK_THAT(outcome.err, contains("signal 9 (Killed)"));
    CHECK(llmz_errors(outcome).empty());

    REQUIRE(io::latest_checkpoint(place / "run", /*verify_checksums=*/true).has_value());
    const Outcome resumed = run_on(kRanks, place, arguments("run", true));
    INFO(resumed.err);
    REQUIRE(resumed.exit_code == 0);
    CHECK_THAT(resumed.err, contains("resumed after step"));
    CHECK(same_run(place / "run") == same_run(place / "undisturbed"));
  }
}

TEST_CASE("a signal to one rank: all finish the step, save, and say so in the exit code", "[failures]") {
  if (!is_open_mpi()) {
    WARN("skipped: it looks for the processes of Open MPI's mpirun");
    return;
  }
  const TinyRun place(/*in_memory=*/true);
  REQUIRE(run_on(kRanks, place, arguments("undisturbed", false)).exit_code == 0);
  for (const int signal : {SIGUSR1, SIGTERM}) {
    INFO("signal " << signal);
    fs::remove_all(place / "run");
    Process mpirun(place.folder(), llmz_on_ranks(kRanks, arguments("run", false)), llmz::testing::mpirun());
    REQUIRE(wait_for_steps(mpirun, place / "run", 12));
    ::kill(rank_processes(mpirun).at(1), signal);
    const Outcome outcome = mpirun.wait();
    INFO(outcome.err);
    CHECK(outcome.exit_code == 128 + signal);
    CHECK_THAT(outcome.err, contains("everything is saved in run: add --resume to go on"));
    const auto newest = io::latest_checkpoint(place / "run", /*verify_checksums=*/true);
    REQUIRE(newest.has_value());
    const Curve curve = read_curve(place / "run");
    CHECK(curve.loss.rbegin()->first == *io::checkpoint_step(newest->filename().string()));
    CHECK(curve.loss.rbegin()->first < kSteps);
    REQUIRE(run_on(kRanks, place, arguments("run", true)).exit_code == 0);
    CHECK(same_run(place / "run") == same_run(place / "undisturbed"));
  }
}

TEST_CASE("what is wrong is said once, and nothing is written", "[failures]") {
  const TinyRun place(/*in_memory=*/true);
  const auto refused = [&](const std::vector<std::string>& settings, const std::string& reason) {
    INFO(reason);
    const Outcome outcome = run_on(kRanks, place, arguments("run", false, settings));
    INFO(outcome.err);
    CHECK(outcome.exit_code != 0);
    const auto errors = llmz_errors(outcome);
    REQUIRE(errors.size() == 1);
    CHECK_THAT(errors[0], contains(reason));
    CHECK(!fs::exists(place / "run"));
  };
  refused({"preset=leen"}, "preset");
  refused({"train.micro_bach=1"}, "micro_bach");
  refused({"data.path=nowhere"}, "data.path: nowhere");
  refused({"model.heads=5"}, "heads");
}

TEST_CASE("a step that comes out wrong is said once, and stops all", "[failures]") {
  const TinyRun place(/*in_memory=*/true);
  for (int repetition = 0; repetition < 5; ++repetition) {
    const Outcome outcome = run_on(kRanks, place, arguments("run", false, {"optimizer.lr=1e30"}));
    INFO(outcome.err);
    CHECK(outcome.exit_code != 0);
    const auto errors = llmz_errors(outcome);
    REQUIRE(errors.size() == 1);
    CHECK_THAT(errors[0], contains("is not finite"));
  }
}

TEST_CASE("a rank that fails alone names itself, and takes the others down", "[failures]") {
  const TinyRun place(/*in_memory=*/true);
  // Rank 1 starts in a folder that has the config and no data.
  fs::create_directory(place / "elsewhere");
  fs::copy(place / "tiny.json", place / "elsewhere/tiny.json");
  const auto two_programs = [&](const std::string& folder, const std::vector<std::string>& settings) {
    std::vector<std::string> words = llmz_on_ranks(1, arguments("run", false));
    words.insert(words.end(), {":", "-n", "1", "-wdir", folder, LLMZ_PROGRAM});
    const auto other = arguments("run", false, settings);
    words.insert(words.end(), other.begin(), other.end());
    return words;
  };
  if (!is_open_mpi()) {
    WARN("skipped: -wdir is Open MPI's");
    return;
  }
  const auto begun = Clock::now();
  const Outcome alone = place.llmz(two_programs((place / "elsewhere").string(), {}), llmz::testing::mpirun());
  INFO(alone.err);
  CHECK(Clock::now() - begun < 10s);
  CHECK(alone.exit_code == 1);
  REQUIRE(llmz_errors(alone).size() == 1);
  CHECK_THAT(llmz_errors(alone)[0], contains("rank 1 of 2 ("));
  CHECK_THAT(llmz_errors(alone)[0], contains("data.path: data"));
  CHECK(!fs::exists(place / "run"));

  const Outcome different =
      place.llmz(two_programs(place.folder().string(), {"optimizer.lr=1e-5"}), llmz::testing::mpirun());
  INFO(different.err);
  CHECK(different.exit_code == 1);
  REQUIRE(llmz_errors(different).size() == 1);
  CHECK_THAT(llmz_errors(different)[0], contains("configuration of rank 1"));
  CHECK(!fs::exists(place / "run"));
}
