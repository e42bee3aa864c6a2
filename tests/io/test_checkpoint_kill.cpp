#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <vector>

#include "catch.h"
#include "llmz/core/error.h"
#include "llmz/core/random.h"
#include "llmz/io/checkpoint.h"
#include "llmz/io/safetensors.h"
#include "scratch.h"
#include "src/io/checkpoint_folder.h"

namespace fs = std::filesystem;
namespace io = llmz::io;
using llmz::DType;
using llmz::Tensor;

namespace {

/// A checkpoint whose every byte depends on `step` and `version`, so that a mixture of two would show.
void write_checkpoint(const fs::path& path, int step, int version, int values) {
  io::CheckpointWriter writer(path);
  std::vector<int32_t> x(static_cast<size_t>(values), step * 1000 + version);
  const Tensor tensor(x.data(), DType::i32, {values});
  const std::vector<io::SafetensorsEntry> entries = {{"x", tensor}};
  writer.add("x.safetensors", io::write_safetensors(writer.path("x.safetensors"), entries));
  io::write_json(writer.path("llmz.json"), {{"step", step}, {"version", version}});
  writer.add("llmz.json");
  writer.commit({{"step", step}, {"version", version}});
}

/// The manifest's extra, after checking that checksums and contents belong to it.
nlohmann::json open_and_compare(const fs::path& path) {
  const io::CheckpointInfo info = io::open_checkpoint(path, true);
  REQUIRE(io::read_json(path / "llmz.json") == info.extra);
  const auto file = io::SafetensorsFile::open(path / "x.safetensors");
  const int64_t values = file.tensors().at(0).shape.at(0);
  std::vector<int32_t> x(static_cast<size_t>(values));
  file.read("x", Tensor(x.data(), DType::i32, {values}));
  const int32_t expected = info.extra["step"].get<int>() * 1000 + info.extra["version"].get<int>();
  REQUIRE(x == std::vector<int32_t>(x.size(), expected));
  return info.extra;
}

/// Leftovers gone, links whole.
void check_clean(const fs::path& checkpoints) {
  io::clean_leftovers(checkpoints);
  for (const std::string& name : names_in(checkpoints)) {
    CAPTURE(name);
    CHECK((io::checkpoint_step(name) || name == "last"));
  }
  if (fs::is_symlink(checkpoints / "last")) open_and_compare(checkpoints / "last");
}

/// Runs `work` in a child. Catch2 must not see the child's end: it leaves by _exit.
pid_t fork_child(const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  try {
    work();
  } catch (const std::exception&) {
    ::_exit(1);
  }
  ::_exit(0);
}

enum class End { killed, finished, not_traceable };

/// Runs `work` in a child and kills it when it stops for the `stop`-th time at a system call: each is seen twice, on
/// its way in and on its way out. Only system calls change a disk, so the stops are all moments there are.
End run_and_kill_at(int stop, const std::function<void()>& work) {
  const pid_t child = fork_child([&] {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(77);
    ::raise(SIGSTOP);
    work();
  });
  int status = 0;
  for (int seen = 0;; ++seen) {
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status)) {
      REQUIRE((WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77));
      return WEXITSTATUS(status) == 0 ? End::finished : End::not_traceable;
    }
    REQUIRE(WIFSTOPPED(status));
    if (seen == stop) break;
    ::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? End::killed : End::finished;
}

/// `prepare` a run, do `work` on it and die at each system call in turn; `examine` what is left.
void kill_everywhere(const std::function<void(const fs::path&)>& prepare,
                     const std::function<void(const fs::path&)>& work,
                     const std::function<void(const fs::path&)>& examine) {
  int stop = 0;
  for (End end = End::killed; end == End::killed; ++stop) {
    const ScratchFolder run(true);
    prepare(run.path());
    end = run_and_kill_at(stop, [&] { work(run.path()); });
    if (end == End::not_traceable) {
      WARN("skipped: this system does not let a test trace its child");
      return;
    }
    CAPTURE(stop);
    examine(run.path());
  }
  CHECK(stop > 100);  // a commit is that many system calls; fewer means that nothing was traced
}

int latest_version(const fs::path& run) {
  const auto latest = io::latest_checkpoint(run, true);
  REQUIRE(latest);
  return open_and_compare(*latest)["version"].get<int>();
}

}  // namespace

TEST_CASE("killed at any system call of a save, link and prune, the run has a whole checkpoint", "[checkpoint][kill]") {
  int before = 0, after = 0;
  kill_everywhere(
      [](const fs::path& run) {
        write_checkpoint(run / "checkpoints/step_00000001", 1, 1, 50);
        io::set_link(run / "checkpoints", "last", "step_00000001");
      },
      [](const fs::path& run) {
        const fs::path next = run / "checkpoints/step_00000002";
        write_checkpoint(next, 2, 2, 50);
        io::set_link(run / "checkpoints", "last", next);
        io::prune(run / "checkpoints", std::vector<fs::path>{next});
      },
      [&](const fs::path& run) {
        open_and_compare(run / "checkpoints/last");  // whole at every moment, also before cleaning
        const int version = latest_version(run);
        ++(version == 1 ? before : after);
        check_clean(run / "checkpoints");
        CHECK(latest_version(run) == version);
      });
  CHECK(before * after > 0);
}

TEST_CASE("killed at any system call of a replacement, one of the two is whole", "[checkpoint][kill]") {
  for (const bool may_swap : {true, false}) {
    CAPTURE(may_swap);
    int before = 0, after = 0;
    kill_everywhere(
        [](const fs::path& run) {
          write_checkpoint(run / "checkpoints/step_00000001", 1, 1, 50);
          write_checkpoint(run / "checkpoints/step_00000001.tmp-4194305", 1, 2, 50);
        },
        [&](const fs::path& run) {
          const fs::path path = run / "checkpoints/step_00000001";
          io::replace_folder(path.string() + ".tmp-4194305", path, may_swap);
          write_checkpoint(path, 1, 3, 50);
        },
        [&](const fs::path& run) {
          const int version = latest_version(run);
          ++(version == 1 ? before : after);
          check_clean(run / "checkpoints");
          CHECK(latest_version(run) == version);
        });
    CHECK(before * after > 0);
  }
}

TEST_CASE("killed at random moments of a run, what it saved last is there", "[checkpoint][kill]") {
  const ScratchFolder run(true);
  const fs::path checkpoints = run / "checkpoints";
  const llmz::RandomStream random(23, llmz::Purpose::test);
  int step = 0;
  for (uint64_t kill = 0; kill < 40; ++kill) {
    const pid_t child = fork_child([&] {
      io::clean_leftovers(checkpoints);
      for (int next = step + 1;; ++next) {
        const fs::path path = checkpoints / io::checkpoint_name(next);
        write_checkpoint(path, next, static_cast<int>(kill), 20'000);
        io::set_link(checkpoints, "last", path);
        io::prune(checkpoints, {});
      }
    });
    ::usleep(static_cast<useconds_t>(2000 + random.below(kill, 30'000)));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));
    const auto latest = io::latest_checkpoint(run.path(), true);
    if (!latest && step == 0) continue;
    REQUIRE(latest);
    const int found = open_and_compare(*latest)["step"].get<int>();
    CHECK(found >= step);
    step = found;
  }
  CHECK(step > 5);
  check_clean(checkpoints);
}

TEST_CASE("a link that is being replaced always leads to a checkpoint", "[checkpoint][kill]") {
  const ScratchFolder run(true);
  const fs::path checkpoints = run / "checkpoints";
  for (const int step : {1, 2}) write_checkpoint(checkpoints / io::checkpoint_name(step), step, 0, 50);
  io::set_link(checkpoints, "last", "step_00000001");
  const pid_t child = fork_child([&] {
    for (int i = 0;; ++i) io::set_link(checkpoints, "last", io::checkpoint_name(1 + i % 2));
  });
  int seen[3] = {};
  for (int i = 0; i < 3000; ++i) {
    std::error_code error;
    const fs::path target = fs::read_symlink(checkpoints / "last", error);
    REQUIRE_FALSE(error);
    REQUIRE(fs::exists(checkpoints / "last/manifest.json"));
    ++seen[io::checkpoint_step(target.string()).value_or(0)];
  }
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(seen[0] == 0);
}
