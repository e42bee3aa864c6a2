#include <signal.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "catch.h"
#include "llmz/core/random.h"
#include "llmz/io/checkpoint.h"
#include "llmz/io/files.h"
#include "tiny_run.h"

using namespace llmz::testing;
namespace io = llmz::io;
using namespace std::chrono_literals;

namespace {

constexpr int kKills = 20;
constexpr int kSteps = 400;

/// Saves at every third step, so that about half of the time goes into checkpoints.
std::vector<std::string> arguments(const std::string& out, bool resume) {
  std::vector<std::string> extra;
  if (resume) extra.push_back("--resume");
  return train_arguments({fmt::format("train.steps={}", kSteps), "output.path=" + out, "output.save_every=3",
                          "train.eval_every=7", "train.eval_batches=1", "train.threads=2", "model.layers=1"},
                         extra);
}

uintmax_t size_of(const fs::path& file) {
  std::error_code none;
  const uintmax_t size = fs::file_size(file, none);
  return none ? 0 : size;
}

/// Whether a checkpoint is half written in `run`.
bool half_written(const fs::path& run) {
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", none)) {
    if (entry.path().filename().string().find(".tmp-") != std::string::npos) return true;
  }
  return false;
}

/// Waits until `process` writes its first step, then for `condition`; false when it ended before.
template <class Condition>
bool wait_until(Process& process, const fs::path& run, uintmax_t metrics_before, const Condition& condition) {
  while (process.running() && size_of(run / "metrics.jsonl") <= metrics_before) std::this_thread::sleep_for(1ms);
  while (process.running() && !condition()) std::this_thread::sleep_for(100us);
  return process.running();
}

std::string last_file(const fs::path& run, const std::string& name) {
  return io::read_text(run / "checkpoints" / "last" / name);
}

/// Same losses, line by line, and the same weights and moments at the end.
void check_same(const fs::path& run, const fs::path& undisturbed) {
  const auto expected = repeatable_metrics(undisturbed / "metrics.jsonl");
  const auto found = repeatable_metrics(run / "metrics.jsonl");
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) REQUIRE(found[i] == expected[i]);
  for (const char* name : {"model.safetensors", "optimizer.safetensors"}) {
    CAPTURE(name);
    CHECK((last_file(run, name) == last_file(undisturbed, name)));  // parenthesised: not to print megabytes
  }
}

}  // namespace

TEST_CASE("killed twenty times at random moments and resumed, a run is the undisturbed one", "[kill_resume]") {
  const TinyRun folder(/*in_memory=*/true);
  const Outcome undisturbed = folder.llmz(arguments("undisturbed", false));
  INFO(undisturbed.err);
  REQUIRE(undisturbed.exit_code == 0);

  const fs::path run = folder / "killed";
  const llmz::RandomStream random(2024, llmz::Purpose::test);
  int kills = 0, in_checkpoint = 0;
  for (uint64_t draw = 0; kills < kKills; ++draw) {
    const uintmax_t before = size_of(run / "metrics.jsonl");
    Process process(folder.folder(), arguments("killed", draw > 0));
    // Half of the moments are aimed at a checkpoint being written, the others come as they come.
    const bool aimed = draw % 2 == 0;
    const auto delay = std::chrono::microseconds(random.below(draw, aimed ? 500 : 20000));
    REQUIRE(wait_until(process, run, before, [&] { return !aimed || half_written(run); }));
    std::this_thread::sleep_for(delay);
    process.send(SIGKILL);
    const Outcome outcome = process.wait();
    INFO(outcome.err);
    REQUIRE(outcome.signal == SIGKILL);  // it was still running
    ++kills;
    in_checkpoint += half_written(run) ? 1 : 0;
  }
  WARN(kills << " kills, " << in_checkpoint << " of them while a checkpoint was being written");
  CHECK(in_checkpoint > 0);
  CHECK(in_checkpoint < kKills);

  const Outcome finished = folder.llmz(arguments("killed", true));
  INFO(finished.err);
  REQUIRE(finished.exit_code == 0);
  CHECK_THAT(finished.err, contains("resumed after step"));
  CHECK(!half_written(run));
  check_same(run, folder / "undisturbed");
}

TEST_CASE("SIGTERM finishes the step, saves, and says so in the exit code", "[kill_resume]") {
  const TinyRun folder(/*in_memory=*/true);
  REQUIRE(folder.llmz(arguments("undisturbed", false)).exit_code == 0);
  const fs::path run = folder / "stopped";
  for (const int signal : {SIGTERM, SIGINT}) {
    const uintmax_t before = size_of(run / "metrics.jsonl");
    Process process(folder.folder(), arguments("stopped", signal != SIGTERM));
    REQUIRE(wait_until(process, run, before, [] { return true; }));
    process.send(signal);
    const Outcome outcome = process.wait();
    INFO(outcome.err);
    CHECK(outcome.exit_code == 128 + signal);
    CHECK_THAT(outcome.last_error_line(), contains("--resume"));
    // Saved after the very step that was last in the log.
    const auto newest = io::latest_checkpoint(run, /*verify_checksums=*/true);
    REQUIRE(newest.has_value());
    const auto metrics = repeatable_metrics(run / "metrics.jsonl");
    CHECK(nlohmann::json::parse(metrics.back())["step"] == *io::checkpoint_step(newest->filename().string()));
  }
  REQUIRE(folder.llmz(arguments("stopped", true)).exit_code == 0);
  check_same(run, folder / "undisturbed");
}
