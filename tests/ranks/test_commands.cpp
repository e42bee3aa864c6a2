// Commands beside `train` under mpirun: doctor and eval take ranks, the others say that they do not.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "catch.h"
#include "ranks/mpi_run.h"

using namespace llmz::testing;
using nlohmann::json;

TEST_CASE("doctor maps and connects the ranks, and prints its report once", "[commands]") {
  hide_gpus();  // CPUs in any number
  const TinyRun place;
  const Outcome text = run_on(3, place, {"doctor"});
  INFO(text.err);
  CHECK(text.exit_code == 0);
  const size_t report = text.out.find("oneDNN "), map = text.out.find("\nrank");
  REQUIRE(map != std::string::npos);
  CHECK(text.out.find("oneDNN ", report + 1) == std::string::npos);
  CHECK(std::count(text.out.begin() + static_cast<std::ptrdiff_t>(map), text.out.end(), '\n') == 8);
  CHECK_THAT(text.out.substr(map), contains("\n   0  ") && contains("\n   2  ") && contains("3 connected through MPI"));
  CHECK(llmz_errors(text).empty());

  const json found = json::parse(run_on(3, place, {"doctor", "--json"}).out);
  REQUIRE(found["ranks"].size() == 3);
  for (size_t rank = 0; rank < 3; ++rank) {
    CHECK(found["ranks"][rank]["rank"] == rank);
    CHECK(found["ranks"][rank]["host"] == found["ranks"][0]["host"]);
    CHECK(found["ranks"][rank]["device"].get<std::string>().starts_with("cpu, 1 thread"));
  }
}

TEST_CASE("eval on several ranks is eval on one", "[commands]") {
  hide_gpus();
  const TinyRun place;
  REQUIRE(place.llmz(train_arguments({"train.steps=2"})).exit_code == 0);
  const std::vector<std::string> command = {"eval", "run", "--data", "data", "--json"};
  const json one = json::parse(run_on(1, place, command).out);
  for (const int ranks : {2, 3}) {
    const Outcome shared = run_on(ranks, place, command);
    INFO(shared.err);
    REQUIRE(shared.exit_code == 0);
    const json all = json::parse(shared.out);
    CHECK(all["tokens"] == one["tokens"]);
    CHECK(all["loss"].get<double>() == Approx(one["loss"].get<double>()).epsilon(1e-12));  // sums in another order
  }
  const Outcome absent = run_on(2, place, {"eval", "absent", "--data", "data"});
  CHECK(absent.exit_code == 1);
  CHECK(llmz_errors(absent) == std::vector<std::string>{"there is no checkpoint at absent"});
}

TEST_CASE("commands of one process say so once under mpirun", "[commands]") {
  const TinyRun place;
  const std::vector<std::vector<std::string>> commands = {
      {"plan", "tiny.json"}, {"generate", "run"}, {"data", "inspect", "data"}};
  for (const std::vector<std::string>& command : commands) {
    const Outcome refused = run_on(2, place, command);
    INFO(command[0]);
    CHECK(refused.exit_code == 2);
    CHECK(refused.out.empty());
    CHECK(llmz_errors(refused) == std::vector<std::string>{fmt::format(
                                      "`llmz {}` runs as one process, not as 2 ranks under mpirun: start it without "
                                      "mpirun",
                                      command[0])});
  }
}
