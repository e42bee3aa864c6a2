// What must hold for every preset: plan = allocation, determinism, resume, learning.
#include <cmath>

#include "catch.h"
#include "engine/tiny_engine.h"
#include "llmz/engine/engine.h"
#include "llmz/ops/matmul.h"
#include "llmz/run/checkpoint.h"
#include "llmz/run/config_io.h"
#include "llmz/run/placement.h"
#include "llmz/run/presets.h"
#include "run/preset_run.h"
#include "run/temp_folder.h"

using namespace llmz;
using namespace llmz::engine;
using namespace llmz::run;
using namespace llmz::test;

namespace {

constexpr int64_t kTokens = 4 * 16;

RunConfig tiny(const std::string& preset, const std::string& architecture) {
  return preset_run(preset, tiny_model(architecture), 4);
}

template <class F>
void for_every_tiny(F&& f) {
  for_every_preset([&](const std::string& name, const std::string& architecture) { f(tiny(name, architecture)); });
}

}  // namespace

TEST_CASE("planned bytes are allocated bytes, and a step takes no others, for every preset") {
  for_every_tiny([](RunConfig config) {
    for (const Compute compute : {Compute::fp32, Compute::bf16}) {
      INFO(computes().name(compute));
      config.precision.compute = compute;
      const EngineOptions options = engine_options(config);
      const MemoryPlan plan = Engine::plan(options);
      Engine engine(options);
      engine.initialise(3);
      CHECK(engine.memory_plan().arena_bytes == plan.arena_bytes);
      CHECK_NOTHROW(train(engine, 5));  // a deviation from the plan throws
    }
  });
}

TEST_CASE("precision.compute = auto takes bf16 where products of it are computed as such") {
  RunConfig config = tiny("full", "llama");
  config.precision.compute = run::Compute::automatic;
  const DType want = ops::multiplies_bf16(DeviceType::cpu) ? DType::bf16 : DType::f32;
  CHECK(engine_options(config).build.precision.activation == want);
  CHECK(engine_options(config).build.precision.weight == want);
  CHECK(engine_options(config).build.precision.accumulator() == DType::f32);
  CHECK(precision_of(config.precision, {DeviceType::cuda, 0}).activation == DType::bf16);
  CHECK(engine_options(config).state.weights == optim::Bf16Weights::master);
}

TEST_CASE("no rank of several takes more memory than rank 0, and all send the same") {
  for (const std::string& name : preset_names()) {
    for (const int ranks : {2, 3, 5, 16}) {
      for (const int64_t zero_stage : {0, 1}) {
        RunConfig config = tiny(name, "llama");
        config.distributed.zero_stage = zero_stage;
        const auto options = [&](int rank) { return engine_options(config, {}, {.rank = rank, .size = ranks}); };
        const size_t most = Engine::plan(options(0)).totals().total;
        const StepTraffic traffic = Engine::traffic_per_step(options(0));
        for (int rank = 1; rank < ranks; ++rank) {
          CAPTURE(name, ranks, zero_stage, rank);
          CHECK(Engine::plan(options(rank)).totals().total <= most);
          const StepTraffic other = Engine::traffic_per_step(options(rank));
          CHECK(other.step.bytes == traffic.step.bytes);
          CHECK(other.refresh.bytes == traffic.refresh.bytes);
        }
      }
    }
  }
}

TEST_CASE("every preset learns, and repeats bit for bit") {
  for_every_tiny([](const RunConfig& config) {
    Engine engine(engine_options(config)), again(engine_options(config));
    engine.initialise(3);
    again.initialise(3);
    const auto curve = train(engine, 25);
    CHECK(train(again, 25) == curve);
    CHECK((weight_bytes(engine) == weight_bytes(again)));
    CHECK(curve.back().loss < 0.8 * curve.front().loss);
  });
}

TEST_CASE("bf16 weights of every kind learn on the CPU, and resume bit for bit") {
  for (const PrecisionSet& set : precision_sets()) {
    for (const char* preset : {"full", "compact_n4", "lean"}) {
      INFO(set.name << " with " << preset);
      RunConfig config = tiny(preset, "llama");
      config.precision = set.config;
      const TempFolder folder;
      Engine whole(engine_options(config));
      whole.initialise(3);
      const double first = train(whole, 6).front().loss;
      save_checkpoint(folder.path() / "c", whole, config, nullptr, {.step = 6});
      Engine resumed(engine_options(config));
      load_checkpoint(folder.path() / "c", resumed);
      StepResult last;
      for (int64_t i = 7; i <= 20; ++i) {
        last = train_step(whole, i);
        REQUIRE(train_step(resumed, i) == last);
      }
      CHECK(last.loss < first);
    }
  }
}

TEST_CASE("a run goes on in another precision from its master copies, and makes them from fp32 weights") {
  RunConfig half = tiny("full", "llama"), full = half;
  half.precision = {.compute = run::Compute::bf16};
  full.precision = {.compute = run::Compute::fp32};
  for (const bool from_half : {true, false}) {
    const TempFolder folder;
    Engine before(engine_options(from_half ? half : full)), after(engine_options(from_half ? full : half));
    before.initialise(3);
    train(before, 3);
    save_checkpoint(folder.path() / "c", before, half, nullptr, {.step = 3});
    load_checkpoint(folder.path() / "c", after);
    Engine& with_master = from_half ? before : after;
    const std::vector<float> weights = weights_of(from_half ? after : before);
    std::vector<float> masters;
    for (const auto& state : with_master.optimizer().states()) {
      if (state.slot != "master") continue;
      const float* m = state.tensor.as<float>();
      masters.insert(masters.end(), m, m + state.tensor.numel());
    }
    REQUIRE(masters.size() == weights.size());
    for (size_t i = 0; i < masters.size(); ++i) {
      REQUIRE(masters[i] == weights[i]);
    }
  }
}

TEST_CASE("every preset resumes with the same losses bit for bit, between refreshes and at one") {
  for_every_tiny([](RunConfig config) {
    for (const auto& [saved, compute] :
         {std::pair<int64_t, Compute>{4, Compute::fp32}, {6, Compute::fp32}, {6, Compute::bf16}}) {
      INFO("saved at " << saved << ", " << computes().name(compute));
      config.precision.compute = compute;
      const TempFolder folder;
      Engine whole(engine_options(config));
      whole.initialise(3);
      train(whole, saved);
      save_checkpoint(folder.path() / "c", whole, config, nullptr, {.step = saved});
      Engine resumed(engine_options(config));
      load_checkpoint(folder.path() / "c", resumed);
      for (int64_t i = saved + 1; i <= saved + 6; ++i) {
        INFO("step " << i);
        CHECK(train_step(whole, i) == train_step(resumed, i));
      }
    }
  });
}

TEST_CASE("a global batch gives nearly the same step however it is split into micro-batches") {
  for_every_tiny([](const RunConfig& config) {
    if (config.activations.qkv_input.projector.kind == subspace::ProjectorKind::prac)
      return;  // principal parts see the first micro-batch
    std::vector<double> norms;
    for (const int64_t micro : {4, 2}) {
      RunConfig split = config;
      split.train.micro_batch = micro;
      Engine engine(engine_options(split));
      engine.initialise(3);
      engine.begin_step(1);
      const auto [tokens, targets] = random_batch(kTokens);
      const auto size = static_cast<size_t>(micro * 16);
      for (size_t at = 0; at < tokens.size(); at += size) {
        engine.micro_step(std::span(tokens).subspan(at, size), std::span(targets).subspan(at, size), 1.0f / kTokens);
      }
      norms.push_back(engine.update(1, 1e-2));
    }
    CHECK(norms[1] == Approx(norms[0]).epsilon(1e-4));  // fp32 sums in another order
  });
}

TEST_CASE("the three choices combine: quantised storage, low-rank gradients, any moments") {
  struct Choice {
    optim::Moments moments;
    optim::AtRefresh at_refresh;
  };
  using enum optim::Moments;
  using enum optim::AtRefresh;
  for (const auto& [moments, at_refresh] :
       {Choice{full, keep}, {factored, keep}, {subspace, keep}, {subspace, reset}, {subspace, rotate}}) {
    INFO(optim::moment_kinds().name(moments) << ", " << optim::refresh_policies().name(at_refresh));
    RunConfig config = tiny("quant4", "llama");
    config.activations.norm.codec = "store";  // subspace moments need the norm apart
    config.activations.down_input.codec = "store";
    config.weight_gradient.form = codec::GradientForm::low_rank;
    config.weight_gradient.projector.kind = subspace::ProjectorKind::sign;
    config.weight_gradient.projector.rank = 0.5f;
    config.weight_gradient.projector.refresh = 5;
    config.optimizer.moments = moments;
    config.optimizer.subspace.at_refresh = at_refresh;
    const EngineOptions options = engine_options(config);
    Engine engine(options);
    CHECK(engine.memory_plan().arena_bytes == Engine::plan(options).arena_bytes);
    engine.initialise(3);
    const auto curve = train(engine, 30);
    CHECK(curve.back().loss < 0.8 * curve.front().loss);
  }
}

TEST_CASE("updates through shared sketches of full rank are those of dense gradients") {
  // The gains between code and layer must be those of the backward pass when the gradient is expanded.
  for (const char* architecture : {"llama", "gpt2"}) {
    for (const optim::Moments moments : {optim::Moments::full, optim::Moments::factored}) {
      INFO(architecture << ", " << optim::moment_kinds().name(moments));
      std::vector<std::vector<double>> results;
      for (const bool sketched : {false, true}) {
        RunConfig config = tiny("full", architecture);
        config.optimizer.moments = moments;
        if (sketched) {
          for (auto member : {&nn::ActivationsConfig::qkv_input, &nn::ActivationsConfig::gate_up_input}) {
            (config.activations.*member).codec = "sketch";
            (config.activations.*member).projector.kind = subspace::ProjectorKind::sign;
            (config.activations.*member).projector.rank = 1.0f;
          }
        }
        EngineOptions options = engine_options(config);
        options.build.precision = {DType::f64, DType::f64};
        Engine engine(options);
        engine.initialise(3);
        train(engine, 6);
        results.emplace_back();
        for (const Parameter* p : engine.model().parameters()) {
          results.back().insert(results.back().end(), p->weight.as<double>(),
                                p->weight.as<double>() + p->weight.numel());
        }
      }
      double worst = 0;
      for (size_t i = 0; i < results[0].size(); ++i) {
        worst = std::max(worst, std::abs(results[0][i] - results[1][i]));
      }
      // Updates of 1e-2. Adam divides gradients that are zero but for rounding (keys' biases) by themselves, which may
      // turn 1e-16 into a whole update; GPT-2 has 2·24 of those.
      size_t off = 0;
      for (size_t i = 0; i < results[0].size(); ++i) off += std::abs(results[0][i] - results[1][i]) > 1e-6;
      INFO("worst " << worst << ", off " << off);
      CHECK(off <= (architecture == std::string("gpt2") ? 2 * 24 : 0));
    }
  }
}

TEST_CASE("diagnostics work where a projector wraps what is rebuilt") {
  RunConfig config = tiny("lean", "llama");
  config.weight_gradient.form = codec::GradientForm::low_rank;
  config.weight_gradient.projector.kind = subspace::ProjectorKind::sign;
  config.train.diagnostics = 1;
  Engine engine(engine_options(config));
  engine.initialise(3);
  train(engine, 1);
  const auto [tokens, targets] = random_batch(kTokens);
  CHECK(engine.diagnose(tokens, targets).size() > 8);
}

TEST_CASE("a checkpoint of another method is refused before anything is read") {
  const TempFolder folder;
  Engine compact(engine_options(tiny("compact_n4", "llama")));
  compact.initialise(3);
  save_checkpoint(folder.path() / "c", compact, tiny("compact_n4", "llama"), nullptr, {.step = 1});
  Engine prac(engine_options(tiny("prac", "llama")));
  CHECK_THROWS_WITH(load_checkpoint(folder.path() / "c", prac), contains("activations") && contains("set them back"));
}

TEST_CASE("a preset survives the way through JSON") {
  for_every_tiny([](const RunConfig& config) {
    const std::string json = to_json(config);
    CHECK(to_json(parse_run_config(json, "run.json")) == json);
  });
}

TEST_CASE("keys beside a preset win, wherever they stand; --set preset replaces the method") {
  const RunConfig c = parse_run_config(R"({"activations": {"qkv_input": {"bits": 8}}, "preset": "lean"})", "run.json");
  CHECK(c.activations.qkv_input.codec == "quant");
  CHECK(c.activations.qkv_input.quant.bits == 8);
  CHECK(c.activations.gate_up_input.quant.bits == 4);
  CHECK(c.optimizer.moments == optim::Moments::factored);
  const RunConfig full = parse_run_config(R"({"preset": "lean"})", "run.json", {"preset=full"});
  CHECK(to_json(full) == to_json(RunConfig{}));
  CHECK_THROWS_WITH(parse_run_config(R"({"preset": "laen"})", "run.json"),
                    contains("preset \"laen\" is unknown") && contains("lean"));
}

TEST_CASE("settings that mean nothing together are refused by name") {
  const auto refused = [](const std::string& json, const std::string& key) {
    INFO(json);
    CHECK_THROWS_WITH(parse_run_config(json, "run.json"), contains(key));
  };
  refused(R"({"activations": {"qkv_input": {"codec": "recompute"}}})", "activations.qkv_input.codec");
  refused(R"({"activations": {"down_input": {"codec": "sketch"}}, "weight_gradient": {"form": "dense"}})",
          "weight_gradient.form");
  refused(
      R"({"activations": {"down_input": {"codec": "sketch", "projector": "prac", "rank": 0.6, "random_rank": 0.6}}})",
      "activations.down_input.random_rank");
  refused(R"({"activations": {"qkv": {"codec": "quant", "bits": 5}}})", "activations.qkv.bits");
  refused(R"({"activations": {"qkv": {"codec": "quant", "bits": 4, "group": 7}}})", "activations.qkv.group");
  refused(R"({"activations": {"qkv": {"codec": "quant", "rotate": 24}}})", "activations.qkv.rotate");
  refused(R"({"optimizer": {"first_moment_bits": 8}})", "optimizer.first_moment_bits");

  RunConfig subspace = tiny("full", "llama");
  subspace.optimizer.moments = optim::Moments::subspace;
  CHECK_THROWS_WITH(Engine::plan(engine_options(subspace)), contains("optimizer.moments"));
  RunConfig shared = tiny("compact_n4", "llama");
  shared.activations.norm.codec = "shared";
  CHECK_THROWS_WITH(Engine::plan(engine_options(shared)), contains("activations.norm.codec"));
  RunConfig rotate = tiny("prac_linear", "llama");
  rotate.optimizer.moments = optim::Moments::subspace;
  rotate.optimizer.subspace.at_refresh = optim::AtRefresh::rotate;
  CHECK_THROWS_WITH(Engine::plan(engine_options(rotate)), contains("optimizer.subspace.at_refresh"));
}

TEST_CASE("diagnostics tell the errors of codes and gradients and change nothing") {
  for (const char* preset : {"lean", "quant4", "compact_n4", "prac", "fast"}) {
    INFO(preset);
    RunConfig config = tiny(preset, "llama");
    config.train.diagnostics = 1;
    Engine measured(engine_options(config));
    config.train.diagnostics = 0;
    Engine plain(engine_options(config));
    measured.initialise(3);
    plain.initialise(3);
    const auto [tokens, targets] = random_batch(kTokens);
    for (int64_t i = 1; i <= 3; ++i) {
      CHECK(train_step(measured, i) == train_step(plain, i));
      const auto errors = measured.diagnose(tokens, targets);
      size_t gradients = 0;
      for (const CodeError& e : errors) {
        INFO(e.what << " " << e.name);
        gradients += e.what == "gradient";
        CHECK(e.relative_error > 0);
        CHECK(e.relative_error < (std::string(preset) == "compact_n4" ? 4.0 : 2.5));  // Gaussian: √(n/r + 1) expected
      }
      CHECK(gradients >= 4);
    }
  }
}
