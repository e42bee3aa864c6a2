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
  for (const auto& finding : json::parse(run_llmz(scratch.path(), {"doctor", "--json"}).out)["findings"]) {
    if (finding["name"] != "MPI" && finding["name"] != "NCCL") continue;
    const std::string what = finding["what"], effect = finding["effect"];
    CAPTURE(what, effect);
    CHECK_THAT(effect, contains("several ranks"));
    CHECK(what.find('\n') == std::string::npos);
    if (finding["state"] == "ok") CHECK(what.find_first_of("0123456789") != std::string::npos);
  }
}
