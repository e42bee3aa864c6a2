// `llmz plan --ranks N`: the memory of one rank among N, and what the ranks send.
#include <map>
#include <nlohmann/json.hpp>

#include "catch.h"
#include "tiny_run.h"

using namespace llmz::testing;
using nlohmann::json;

namespace {

constexpr const char* k60m = LLMZ_SOURCE_DIR "/configs/llama-60m-c4.json";

/// The plan as JSON of LLaMA-60M (8 layers, 512 wide, 1376 between) in fp32, with `settings`.
json plan_of_60m(const ScratchFolder& scratch, int ranks, const std::vector<std::string>& settings,
                 const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments = {"plan", k60m, "--json", "--set", "precision=fp32"};
  arguments.insert(arguments.end(), {"--ranks", std::to_string(ranks)});
  for (const std::string& setting : settings) arguments.insert(arguments.end(), {"--set", setting});
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Outcome outcome = run_llmz(scratch.path(), arguments);
  INFO(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  return json::parse(outcome.out);
}

double payload(const json& plan, const char* kind) { return plan["between_ranks"]["payload"][kind].get<double>(); }

}  // namespace

TEST_CASE("plan --ranks tells a rank's memory with and without ZeRO-1", "[cli]") {
  const ScratchFolder scratch;
  const json alone = plan_of_60m(scratch, 1, {});
  const json whole = plan_of_60m(scratch, 8, {"distributed.zero_stage=0"});
  const json part = plan_of_60m(scratch, 8, {"distributed.zero_stage=1"});
  CHECK_FALSE(alone.contains("between_ranks"));
  for (const char* category : {"weights", "gradients", "optimizer", "codes", "activations"}) {
    CHECK(whole[category] == alone[category]);
  }
  // All but the gains, of 17 norms, are divided; a few bytes more align each of the two moments of 74 tensors.
  const int64_t moments = whole["optimizer"].get<int64_t>(), gains = 2 * 4 * 17 * 512;
  const int64_t more = part["optimizer"].get<int64_t>() - ((moments - gains) / 8 + gains);
  CHECK(std::abs(more) < 2 * 74 * 256);
  CHECK(whole["total"].get<int64_t>() - part["total"].get<int64_t>() > (moments - gains) * 7 / 8 - 2 * 74 * 256);
}

TEST_CASE("plan --ranks tells what ranks send", "[cli]") {
  const ScratchFolder scratch;
  const json dense = plan_of_60m(scratch, 8, {});
  const double gradients = dense["gradients"].get<double>();
  CHECK(payload(dense, "all-reduce") == Approx(gradients).epsilon(1e-6));
  CHECK(dense["between_ranks"]["sent"].get<double>() == Approx(2 * 7.0 / 8 * gradients).epsilon(1e-6));
  CHECK(dense["between_ranks"]["refresh_sent"] == 0);
  const json& links = dense["between_ranks"]["transfer"];
  CHECK(links[1]["link"] == "10 Gbit/s");
  CHECK(links[1]["seconds"].get<double>() == Approx(dense["between_ranks"]["sent"].get<double>() * 8 / 10e9));

  const json zero = plan_of_60m(scratch, 8, {"distributed.zero_stage=1"});
  CHECK(payload(zero, "reduce-scatter") == payload(zero, "all-gather"));
  CHECK(zero["between_ranks"]["sent"].get<double>() == Approx(dense["between_ranks"]["sent"].get<double>()));

  // CompAct projects the inputs of all matrices but attention's output projection.
  const json compact = plan_of_60m(scratch, 8, {"preset=compact_n4"});
  const int64_t output_projections = int64_t{4} * 8 * 512 * 512;
  const auto projected = [&](const char* key) {
    return compact["between_ranks"][key].get<int64_t>() - output_projections;
  };
  CHECK(4 * projected("linear_gradients") == projected("linear_gradients_dense"));
  CHECK(compact["between_ranks"]["linear_gradients_dense"] == dense["between_ranks"]["linear_gradients"]);
  // Weights are gathered whole, whatever the gradients are.
  const json compact_zero = plan_of_60m(scratch, 8, {"preset=compact_n4", "distributed.zero_stage=1"});
  CHECK(payload(compact_zero, "all-gather") == payload(zero, "all-gather"));
  CHECK(payload(compact_zero, "reduce-scatter") == Approx(payload(compact, "all-reduce")).epsilon(1e-3));

  const json prac = plan_of_60m(scratch, 8, {"preset=prac"});
  CHECK(prac["between_ranks"]["refresh_payload"]["broadcast"].get<double>() > 0);
}

TEST_CASE("plan --ranks --compare has what each preset sends", "[cli]") {
  const ScratchFolder scratch;
  std::map<std::string, json> rows;
  for (const json& row : plan_of_60m(scratch, 8, {}, {"--compare"})) rows[row["preset"]] = row;
  for (const char* name : {"full", "compact_n4", "prac", "lean"}) {
    INFO(name);
    const json alone = plan_of_60m(scratch, 8, {std::string("preset=") + name});
    CHECK(rows.at(name)["ranks"] == 8);
    CHECK(rows.at(name)["total"] == alone["total"]);
    CHECK(rows.at(name)["sent"] == alone["between_ranks"]["sent"]);
    CHECK(rows.at(name)["refresh_sent"] == alone["between_ranks"]["refresh_sent"]);
  }
  CHECK_THAT(run_llmz(scratch.path(), {"plan", k60m, "--ranks", "8", "--compare"}).out,
             contains("rank 0 of 8") && contains("sent a step"));
  CHECK_THAT(run_llmz(scratch.path(), {"plan", k60m, "--compare"}).out, !contains("sent"));
  CHECK_THAT(run_llmz(scratch.path(), {"plan", k60m, "--ranks", "8"}).out,
             contains("rank 0 of 8") && contains("each rank sends") && contains("100 Gbit/s"));
}

TEST_CASE("a number of ranks that cannot be is one line", "[cli]") {
  const ScratchFolder scratch;
  const auto refusal = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"plan", k60m, "--ranks"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run_llmz(scratch.path(), arguments);
    CHECK(outcome.exit_code > 0);
    CHECK(outcome.out.empty());
    CHECK(outcome.error_lines() == 1);
    return outcome.err;
  };
  CHECK_THAT(refusal({"0"}), contains("--ranks") && contains("0"));
  CHECK_THAT(refusal({"-2"}), contains("--ranks") && contains("-2"));
  CHECK_THAT(refusal({"two"}), contains("--ranks") && contains("two"));
  CHECK_THAT(refusal({"7"}), contains("global batch of 512") && contains("7 ranks") && contains("multiple of 224"));
  CHECK_THAT(refusal({"7", "--compare"}), contains("multiple of 224"));
  CHECK_THAT(refusal({"2", "--accounting", "paper"}), contains("--ranks"));
}
