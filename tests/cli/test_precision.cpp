// In which type a run computes, and what that takes.
#include <nlohmann/json.hpp>

#include "catch.h"
#include "llmz/io/checkpoint.h"
#include "llmz/io/files.h"
#include "llmz/io/safetensors.h"
#include "tiny_run.h"

using namespace llmz::testing;
namespace io = llmz::io;
using nlohmann::json;

TEST_CASE("precision.compute = auto is answered when a run begins, and kept where another processor goes on", "[cli]") {
  // A processor that has no products of bf16, as far as oneDNN is told, and the one that is here.
  const ProcessOptions without{.environment = "ONEDNN_MAX_CPU_ISA=AVX512_CORE"}, here;
  const auto train = [](const TinyRun& run, int steps, const ProcessOptions& on, const char* how) {
    const Outcome outcome = run.llmz(train_arguments({"precision.compute=auto", "train.device=cpu",
                                                      "output.save_every=2", fmt::format("train.steps={}", steps)},
                                                     {how}),
                                     on);
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    return outcome.err;
  };
  const auto kept = [](const TinyRun& run) {
    const json in_folder = json::parse(io::read_text(run / "run/config.json"));
    CHECK(json::parse(io::read_text(run / "run/checkpoints/last/llmz.json"))["config"] == in_folder);
    return in_folder["precision"]["compute"].get<std::string>();
  };
  const auto stored = [](const TinyRun& run) {
    return io::SafetensorsFile::open(run / "run/checkpoints/last/model.safetensors").tensors().front().dtype;
  };
  const TinyRun plain;
  CHECK_THAT(train(plain, 2, without, "--overwrite"), contains("GFLOP/s in f32"));
  CHECK(kept(plain) == "fp32");
  const std::string resumed = train(plain, 4, here, "--resume");
  CHECK_THAT(resumed, contains("GFLOP/s in f32") && !contains("precision.compute:"));
  CHECK(kept(plain) == "fp32");
  CHECK(stored(plain) == "F32");

  const TinyRun other;
  const bool native = train(other, 2, here, "--overwrite").find("GFLOP/s in bf16") != std::string::npos;
  CHECK((resumed.find("auto stays fp32") != std::string::npos) == native);
  const std::string elsewhere = train(other, 4, without, "--resume");
  CHECK((elsewhere.find("auto stays bf16") != std::string::npos) == native);
  CHECK(stored(other) == (native ? "BF16" : "F32"));

  // As an llmz kept it that did not answer: the weights tell.
  json old = json::parse(io::read_text(plain / "run/checkpoints/last/llmz.json"));
  old["config"]["precision"]["compute"] = "auto";
  const TinyRun before;
  fs::create_directories(before / "run/checkpoints");
  io::CheckpointWriter writer(before / "run/checkpoints/step_00000004");
  for (const auto& file : fs::directory_iterator(plain / "run/checkpoints/last")) {
    const std::string name = file.path().filename().string();
    if (name == "manifest.json") continue;
    io::write_text(writer.path(name), name == "llmz.json" ? old.dump() : io::read_text(file.path()));
    writer.add(name);
  }
  writer.commit({{"step", 4}});
  CHECK_THAT(train(before, 6, here, "--resume"), contains("GFLOP/s in f32"));
  CHECK(stored(before) == "F32");
}

TEST_CASE("plan says in which type, as train does", "[cli]") {
  const TinyRun run;
  const Outcome trained = run.llmz(train_arguments({"precision.compute=auto", "train.device=cpu", "train.steps=1"}));
  REQUIRE(trained.exit_code == 0);
  const std::string type = trained.err.find("GFLOP/s in bf16") != std::string::npos ? "bf16" : "f32";
  const auto plan = [&](const ProcessOptions& on, std::vector<std::string> more) {
    more.insert(more.begin(), {"plan", "tiny.json", "--set", "precision.compute=auto", "--set", "train.device=cpu"});
    return run.llmz(more, on).out;
  };
  CHECK_THAT(plan({}, {}), contains("tokens, in " + type + ";"));
  CHECK_THAT(plan({}, {"--compare"}), contains("tokens, in " + type + "\n"));
  CHECK_THAT(plan({.environment = "ONEDNN_MAX_CPU_ISA=AVX512_CORE"}, {}), contains("tokens, in f32;"));
}

TEST_CASE("the process stays within its plan and what libraries need, and falls in bf16 where that falls", "[cli]") {
  const ScratchFolder scratch;
  double planned[2] = {}, resident[2] = {};
  for (const int half : {0, 1}) {
    const Outcome outcome =
        run_llmz(scratch.path(), {"bench", "step", "--json", "--model",
                                  LLMZ_SOURCE_DIR "/configs/models/llama-35m.json", "--micro-batch", "8", "--sequence",
                                  "256", "--repeat", "1", "--set", half != 0 ? "precision=bf16" : "precision=fp32"});
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    const json step = json::parse(outcome.out);
    planned[half] = step["planned_bytes"].get<double>();
    resident[half] = step["peak_resident_bytes"].get<double>();
    const double loaded = step["loaded_bytes"].get<double>();
    CHECK(loaded > 1e6);
    CHECK(step["allocated_bytes"] == step["planned_bytes"]);
    CHECK(resident[half] - loaded < 1.05 * planned[half] + 200e6);  // the bound of docs/architecture.md
  }
  CHECK(planned[0] > 600e6);
  // A processor without products of bf16 widens whole operands, which may take more than is saved.
  CHECK((resident[1] < resident[0]) == (planned[1] < planned[0]));
}

TEST_CASE("an empty LLMZ_CPU_ISA is as none", "[cli]") {
  const TinyRun run;
  const Outcome trained = run.llmz(train_arguments({"train.steps=1"}), {.environment = "LLMZ_CPU_ISA="});
  INFO(trained.err);
  CHECK(trained.exit_code == 0);
  CHECK(run.llmz(train_arguments({"train.steps=1"}, {"--overwrite"}), {.environment = "LLMZ_CPU_ISA=sse9"}).exit_code ==
        1);
}
