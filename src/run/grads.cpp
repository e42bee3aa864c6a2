#include "llmz/run/grads.h"

#include <algorithm>

#include "llmz/data/dataset.h"
#include "llmz/io/safetensors.h"
#include "llmz/run/checkpoint.h"

namespace llmz::run {
namespace {

namespace fs = std::filesystem;

std::vector<std::vector<int32_t>> rows_of_json(const fs::path& file) {
  const nlohmann::json json = io::read_json(file);
  const auto is_row = [](const nlohmann::json& row) {
    const auto is_id = [](const nlohmann::json& id) { return id.is_number_integer(); };
    return row.is_array() && row.size() >= 2 && std::all_of(row.begin(), row.end(), is_id);
  };
  check(json.is_array() && !json.empty() && std::all_of(json.begin(), json.end(), is_row),
        "{} must hold an array of arrays of at least two token ids", file.string());
  return json.get<std::vector<std::vector<int32_t>>>();
}

std::vector<std::vector<int32_t>> rows_of_shard(const fs::path& file, int64_t rows, int64_t sequence) {
  const auto shard = data::ShardReader::open(file);
  check(rows * sequence < shard.tokens(), "{} holds {} tokens, fewer than {} windows of {} need", file.string(),
        shard.tokens(), rows, sequence);
  std::vector<std::vector<int32_t>> all;
  for (int64_t row = 0; row < rows; ++row) {
    all.emplace_back(static_cast<size_t>(sequence + 1));
    shard.read(row * sequence, all.back());
  }
  return all;
}

}  // namespace

std::vector<std::vector<int32_t>> read_token_rows(const fs::path& file, int64_t rows, int64_t sequence) {
  return file.extension() == ".json" ? rows_of_json(file) : rows_of_shard(file, rows, sequence);
}

double write_gradients(const fs::path& checkpoint, const std::vector<std::vector<int32_t>>& rows, const fs::path& out) {
  const CheckpointHeader header = open_model(checkpoint);
  check(!rows.empty(), "there are no token rows");
  const auto sequence = static_cast<int64_t>(rows.front().size()) - 1;
  std::vector<int32_t> tokens, targets;
  for (const auto& row : rows) {
    check(static_cast<int64_t>(row.size()) == sequence + 1, "token rows differ in length: {} and {}", sequence + 1,
          row.size());
    for (int32_t id : row) {
      check(id >= 0 && id < header.model.vocab_size, "token id {} is outside the model's vocabulary of {}", id,
            header.model.vocab_size);
    }
    tokens.insert(tokens.end(), row.begin(), row.end() - 1);
    targets.insert(targets.end(), row.begin() + 1, row.end());
  }
  check(sequence <= header.model.context, "rows of {} tokens exceed the model's context of {}", sequence,
        header.model.context);

  engine::EngineOptions options{.model = header.model};
  options.micro_batch = static_cast<int64_t>(rows.size());
  options.sequence = sequence;
  engine::Engine engine(options);
  load_weights(header.folder, engine.model(), engine.memory());
  const auto count = static_cast<double>(tokens.size());
  engine.begin_step(1);
  engine.micro_step(tokens, targets, static_cast<float>(1 / count));
  double loss = engine.loss_sum() / count;

  std::vector<io::SafetensorsEntry> entries = {{"loss", Tensor(&loss, DType::f64, {1})}};
  for (const Parameter* p : engine.model().parameters()) {
    for (const ParameterPart& part : p->parts) {
      entries.push_back({part.name, Parameter::rows_of(p->grad.dense, part), part.transposed});
    }
  }
  io::write_safetensors(out, entries);
  return loss;
}

}  // namespace llmz::run
