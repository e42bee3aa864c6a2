// llmz against an independent implementation in PyTorch: tests/data/reference/README.md says what the files are.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "catch.h"
#include "llmz/engine/engine.h"
#include "llmz/io/files.h"
#include "llmz/io/safetensors.h"
#include "llmz/model/hf_config.h"
#include "llmz/run/checkpoint.h"

using namespace llmz;
namespace fs = std::filesystem;

namespace {

struct Batch {
  std::vector<int32_t> tokens, targets;
};

/// Rows of S + 1 ids: inputs are the first S, targets the last S.
Batch to_batch(const nlohmann::json& rows) {
  Batch batch;
  for (const auto& row : rows) {
    const auto ids = row.get<std::vector<int32_t>>();
    batch.tokens.insert(batch.tokens.end(), ids.begin(), ids.end() - 1);
    batch.targets.insert(batch.targets.end(), ids.begin() + 1, ids.end());
  }
  return batch;
}

/// max|a − b| / max|b| of a parameter's part against a tensor of the file.
double relative_error(const io::SafetensorsFile& file, const std::string& name, const Tensor& part, bool transposed) {
  std::vector<float> expected(static_cast<size_t>(part.numel()));
  const Tensor into(expected.data(), DType::f32, part.shape);
  file.read(name, into, transposed);
  const float* actual = part.as<float>();
  double worst = 0, largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    REQUIRE(std::isfinite(actual[i]));
    worst = std::max(worst, static_cast<double>(std::abs(actual[i] - expected[i])));
    largest = std::max(largest, static_cast<double>(std::abs(expected[i])));
  }
  return worst / largest;
}

struct Reference {
  fs::path folder;
  nlohmann::json adamw, rows;
  engine::EngineOptions options;

  explicit Reference(const char* name) : folder(fs::path(LLMZ_SOURCE_DIR) / "tests/data/reference" / name) {
    adamw = io::read_json(folder / "adamw.json");
    rows = io::read_json(folder / "batch.json");
    options.model = model::from_hf_config(io::read_text(folder / "config.json"));
    options.micro_batch = static_cast<int64_t>(rows.size());
    options.sequence = static_cast<int64_t>(rows[0].size()) - 1;
    options.build.loss_chunk = 16;  // several uneven chunks
    options.optimizer.beta1 = adamw["betas"][0];
    options.optimizer.beta2 = adamw["betas"][1];
    options.optimizer.eps = adamw["eps"];
    options.optimizer.weight_decay = adamw["weight_decay"];
    options.optimizer.clip_norm = adamw["max_grad_norm"];
  }
  double tokens() const { return static_cast<double>(options.micro_batch * options.sequence); }
};

double step_loss(engine::Engine& engine, const std::vector<int32_t>& tokens, const std::vector<int32_t>& targets,
                 float grad_scale) {
  engine.micro_step(tokens, targets, grad_scale);
  return engine.loss_sum();
}

}  // namespace

TEST_CASE("loss and every gradient equal PyTorch's") {
  for (const char* name : {"llama", "gpt2"}) {
    const Reference reference(name);
    engine::Engine engine(reference.options);
    run::load_weights(reference.folder, engine.model(), engine.memory());
    const auto expected = io::SafetensorsFile::open(reference.folder / "expected.safetensors");
    double expected_loss = 0;
    expected.read("loss", Tensor(&expected_loss, DType::f64, {1}));

    const Batch batch = to_batch(reference.rows);
    engine.begin_step(1);
    const double loss =
        step_loss(engine, batch.tokens, batch.targets, static_cast<float>(1 / reference.tokens())) / reference.tokens();
    CHECK(loss == Approx(expected_loss).epsilon(1e-6));  // fp32 rounding of logits: README of the fixtures
    for (const Parameter* p : engine.model().parameters()) {
      for (const ParameterPart& part : p->parts) {
        INFO(name << ": " << part.name);
        // PyTorch itself strays by 2e-6 in fp32.
        CHECK(relative_error(expected, "grad." + part.name, Parameter::rows_of(p->grad.dense, part), part.transposed) <
              1e-5);
      }
    }
  }
}

TEST_CASE("ten steps of clipped AdamW follow PyTorch's") {
  for (const char* name : {"llama", "gpt2"}) {
    const Reference reference(name);
    engine::Engine engine(reference.options);
    run::load_weights(reference.folder, engine.model(), engine.memory());
    for (int step = 0; step < 10; ++step) {
      INFO(name << ", step " << step);
      const Batch batch = to_batch(reference.adamw["batches"][step]);
      engine.begin_step(static_cast<int64_t>(step) + 1);
      const double loss = step_loss(engine, batch.tokens, batch.targets, static_cast<float>(1 / reference.tokens())) /
                          reference.tokens();
      CHECK(loss == Approx(reference.adamw["losses"][step].get<double>()).epsilon(2e-6));
      const double norm = engine.update(step + 1, reference.adamw["learning_rates"][step]);
      CHECK(norm == Approx(reference.adamw["grad_norms"][step].get<double>()).epsilon(2e-6));
    }
    const auto after = io::SafetensorsFile::open(reference.folder / "after10.safetensors");
    for (const Parameter* p : engine.model().parameters()) {
      for (const ParameterPart& part : p->parts) {
        INFO(name << ": " << part.name);
        // Adam divides by √v: a gradient near zero keeps few digits. PyTorch in fp32 strays by as much (README).
        CHECK(relative_error(after, part.name, Parameter::rows_of(p->weight, part), part.transposed) < 1e-4);
      }
    }
  }
}
