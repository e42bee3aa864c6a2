// Commands that several processes run together. Over TCP, so that no mpirun is needed.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "catch.h"
#include "llmz/core/error.h"
#include "tiny_run.h"

using namespace llmz::testing;
using nlohmann::json;

namespace {

/// A port that nobody listens on just now.
int free_port() {
  const int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  socklen_t length = sizeof address;
  llmz::check(bind(s, reinterpret_cast<sockaddr*>(&address), length) == 0, "no free port");
  getsockname(s, reinterpret_cast<sockaddr*>(&address), &length);
  close(s);
  return ntohs(address.sin_port);
}

/// The same command on every rank; how each ended.
std::vector<Outcome> run_ranks(const fs::path& folder, int ranks, const std::vector<std::string>& command) {
  hide_gpus();  // CPUs in any number
  const std::string rendezvous = fmt::format("tcp:127.0.0.1:{}", free_port());
  std::vector<std::unique_ptr<Process>> processes;
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<std::string> arguments = command;
    arguments.insert(arguments.end(),
                     {"--rendezvous", rendezvous, "--rank", std::to_string(rank), "--ranks", std::to_string(ranks)});
    processes.push_back(std::make_unique<Process>(folder, arguments));
  }
  std::vector<Outcome> outcomes;
  for (const auto& process : processes) outcomes.push_back(process->wait());
  return outcomes;
}

}  // namespace

TEST_CASE("doctor maps the ranks and says why they cannot train", "[cli]") {
  const ScratchFolder scratch;
  const auto ended = run_ranks(scratch.path(), 2, {"doctor"});
  const std::string map = ended[0].out.substr(ended[0].out.find("\nrank"));
  CAPTURE(ended[0].out, ended[0].err);
  CHECK_THAT(map, contains("device") && contains("\n   0  ") && contains("\n   1  ") && contains("cpu, "));
  CHECK_THAT(ended[0].out, contains("oneDNN"));
  CHECK(ended[1].out.empty());
  // As `train` refuses CPUs without MPI.
  CHECK(ended[0].exit_code == 1);
  CHECK(ended[1].exit_code == 1);
  CHECK_THAT(ended[0].err, contains("on the CPU several ranks need MPI"));
}

TEST_CASE("doctor names MPI and NCCL as they name themselves", "[cli]") {
  const ScratchFolder scratch;
  const json report = json::parse(run_llmz(scratch.path(), {"doctor", "--json"}).out);
  int named = 0;
  for (const auto& finding : report["findings"]) {
    if (finding["name"] != "MPI" && finding["name"] != "NCCL") continue;
    ++named;
    const std::string what = finding["what"], effect = finding["effect"];
    CAPTURE(what, effect);
    CHECK_THAT(effect, contains("several ranks"));
    CHECK(what.find('\n') == std::string::npos);
    if (finding["state"] == "ok") CHECK(what.find_first_of("0123456789") != std::string::npos);
  }
  CHECK(named == 2);
}

TEST_CASE("ranks share the windows of an evaluation, and one of them tells the result", "[cli]") {
  const TinyRun run;
  REQUIRE(run.llmz(train_arguments({"train.steps=2"})).exit_code == 0);
  const std::vector<std::vector<std::string>> variants = {
      {}, {"--stride", "8"}, {"--batch", "3", "--max-batches", "5"}, {"--batch", "5000"}};  // the last: one batch
  for (const auto& more : variants) {
    CAPTURE(more);
    std::vector<std::string> command = {"eval", "run", "--data", "data", "--json"};
    command.insert(command.end(), more.begin(), more.end());
    if (more.size() == 2 && more[0] == "--batch") command.insert(command.end(), {"--sequence", "2"});
    const Outcome alone = run.llmz(command);
    const auto shared = run_ranks(run.folder(), 3, command);
    REQUIRE(alone.exit_code == 0);
    for (const Outcome& outcome : shared) {
      INFO(outcome.err);
      REQUIRE(outcome.exit_code == 0);
    }
    CHECK(shared[1].out.empty());
    CHECK(shared[2].out.empty());
    const json one = json::parse(alone.out), three = json::parse(shared[0].out);
    // The same losses, each in double precision, added in another order.
    CHECK(three["loss"].get<double>() == Approx(one["loss"].get<double>()).epsilon(1e-12));
    CHECK(three["tokens"] == one["tokens"]);
    CHECK(three["bits_per_byte"].is_null() == one["bits_per_byte"].is_null());
  }
}

TEST_CASE("ranks that cannot evaluate say so once", "[cli]") {
  const TinyRun run;
  const auto ended = run_ranks(run.folder(), 2, {"eval", "absent", "--data", "data"});
  for (const Outcome& outcome : ended) CHECK(outcome.exit_code == 1);
  CHECK(ended[0].error_lines() == 1);
  CHECK_THAT(ended[0].err, contains("no checkpoint at absent"));
  CHECK(ended[1].err.empty());
  CHECK_THAT(run.llmz({"eval", "run", "--data", "data", "--rank", "0"}).err, contains("--rendezvous"));
}

TEST_CASE("commands of one process refuse to be ranks of mpirun", "[cli]") {
  const TinyRun run;
  const std::vector<std::vector<std::string>> commands = {
      {"plan", "tiny.json"}, {"generate", "run"}, {"bench", "matmul"}, {"data", "inspect", "data"}};
  const auto under_mpirun = [&](const char* rank, const char* size, const std::vector<std::string>& command) {
    setenv("OMPI_COMM_WORLD_RANK", rank, 1);  // as Open MPI's mpirun does
    setenv("OMPI_COMM_WORLD_SIZE", size, 1);
    const Outcome outcome = run.llmz(command);
    unsetenv("OMPI_COMM_WORLD_RANK");
    unsetenv("OMPI_COMM_WORLD_SIZE");
    return outcome;
  };
  for (const auto& command : commands) {
    CAPTURE(command);
    const Outcome first = under_mpirun("0", "3", command), second = under_mpirun("1", "3", command);
    CHECK(first.exit_code == 2);
    CHECK(first.error_lines() == 1);
    CHECK_THAT(first.err, contains("llmz " + command[0]) && contains("3 ranks under mpirun"));
    CHECK(second.exit_code == 2);
    CHECK(second.err.empty());
    CHECK((first.out + second.out).empty());
  }
  CHECK(under_mpirun("0", "1", {"plan", "tiny.json"}).exit_code == 0);
}
