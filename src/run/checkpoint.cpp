#include "llmz/run/checkpoint.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "llmz/engine/owned_rows.h"
#include "llmz/io/checkpoint.h"
#include "llmz/io/safetensors.h"
#include "llmz/model/hf_config.h"
#include "llmz/run/config_io.h"

namespace llmz::run {
namespace {

namespace fs = std::filesystem;

constexpr int kFormat = 2;
constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kModelConfigFile = "config.json";
constexpr const char* kRunFile = "llmz.json";

/// `whole`: all rows of the parameter's weight.
std::vector<io::SafetensorsEntry> weight_entries(const Parameter& p, const Tensor& whole) {
  std::vector<io::SafetensorsEntry> entries;
  for (const ParameterPart& part : p.parts) {
    entries.push_back({part.name, Parameter::rows_of(whole, part), part.transposed});
  }
  return entries;
}

std::vector<io::SafetensorsEntry> weight_entries(const model::Model& model) {
  std::vector<io::SafetensorsEntry> entries;
  for (const Parameter* p : model.parameters()) {
    for (io::SafetensorsEntry& entry : weight_entries(*p, p->weight)) entries.push_back(std::move(entry));
  }
  return entries;
}

/// The names under which a state is stored, and the tensors that `whole`, all rows of it, has for them. Optimizer
/// states carry Hugging Face's names too, in the engine's own orientation: "exp_avg.<name>". What belongs to a
/// parameter as a whole has the engine's name for it.
std::vector<io::SafetensorsEntry> entries_of(const optim::Optimizer::State& state, const Tensor& whole) {
  if (!state.by_rows) return {{state.slot + "." + state.parameter->name, whole}};
  std::vector<io::SafetensorsEntry> entries;
  for (const ParameterPart& part : state.parameter->parts) {
    entries.push_back({state.slot + "." + part.name, Parameter::rows_of(whole, part)});
  }
  return entries;
}

/// All that the optimizer's file holds; each tensor comes out of `states` when it is fetched, which is collective.
/// Projectors: "projector.<tensor>.principal".
std::vector<io::SafetensorsEntry> state_entries(engine::Engine& engine, engine::WholeState& states) {
  std::vector<io::SafetensorsEntry> entries;
  for (const auto& state : engine.optimizer().states()) {
    const auto all = entries_of(state, states.shape(state));
    for (size_t i = 0; i < all.size(); ++i) {
      entries.push_back(all[i]);
      entries.back().fetch = [&states, state, i] { return entries_of(state, states.gather(state)).at(i).tensor; };
    }
  }
  for (const subspace::State& state : engine.model().codec_states()) {
    entries.push_back({"projector." + state.name, state.tensor});
  }
  return entries;
}

void read_entries(const fs::path& file, const std::vector<io::SafetensorsEntry>& entries, Memory& memory) {
  const auto tensors = io::SafetensorsFile::open(file);
  for (const auto& entry : entries) {
    // Folders of a bare transformer, such as the hub's gpt2, leave out the first word of "transformer.wte.weight".
    const std::string bare = entry.name.substr(entry.name.find('.') + 1);
    const bool is_bare = tensors.find(entry.name) == nullptr && tensors.find(bare) != nullptr;
    tensors.read(is_bare ? bare : entry.name, entry.tensor, entry.transpose, &memory);
  }
}

/// Weights are stored in the type that they were multiplied in.
Compute stored_compute(const fs::path& model_file) {
  const auto tensors = io::SafetensorsFile::open(model_file);
  return !tensors.tensors().empty() && tensors.tensors().front().dtype == "BF16" ? Compute::bf16 : Compute::fp32;
}

constexpr std::string_view kMaster = "master";

/// A run may go on in another precision: fp32 weights come from the file's master copies where it has some (and master
/// copies that it has not from its weights, load_states). Returns whether the file has some.
bool read_masters_into_weights(const fs::path& file, engine::Engine& engine) {
  const auto tensors = io::SafetensorsFile::open(file);
  bool kept = false;
  for (const Parameter* p : engine.model().parameters()) {
    for (const ParameterPart& part : p->parts) {
      const std::string name = fmt::format("{}.{}", kMaster, part.name);
      if (tensors.find(name) == nullptr) continue;
      kept = true;
      if (p->weight.dtype != DType::bf16) {
        tensors.read(name, Parameter::rows_of(p->weight, part), false, &engine.memory());
      }
    }
  }
  return kept;
}

/// Every state in its turn: rank 0 reads it whole, all take their rows. Without `masters` in the file, master copies
/// are the model file's weights: those of the engine may have been rounded on their way into it.
void load_states(const fs::path& from, engine::Engine& engine, engine::WholeState& states, bool masters, bool leads) {
  const fs::path file = from / kOptimizerFile;
  for (const auto& state : engine.optimizer().states()) {
    const bool is_weight = state.slot == kMaster && !masters;
    if (leads && is_weight) {
      read_entries(from / kModelFile, weight_entries(*state.parameter, states.room(state)), engine.memory());
    } else if (leads) {
      read_entries(file, entries_of(state, states.room(state)), engine.memory());
    }
    states.scatter(state);
  }
  for (const subspace::State& state : engine.model().codec_states()) {
    if (leads) read_entries(file, {{"projector." + state.name, state.tensor}}, engine.memory());
    if (engine.exec().ranks != nullptr) engine.ranks().broadcast(state.tensor, 0);
  }
}

/// That the optimizer's file holds what this engine keeps: another method keeps other things.
void check_same_method(const fs::path& file, const std::vector<io::SafetensorsEntry>& entries) {
  const auto tensors = io::SafetensorsFile::open(file);
  const auto same = [](const std::vector<int64_t>& dims, const Shape& shape) {
    bool equal = static_cast<int>(dims.size()) == shape.rank();
    for (int i = 0; equal && i < shape.rank(); ++i) equal = dims[static_cast<size_t>(i)] == shape[i];
    return equal;
  };
  for (const auto& entry : entries) {
    const auto* there = tensors.find(entry.name);
    check(there != nullptr && same(there->shape, entry.tensor.shape),
          "{} does not hold '{}' {}, which this configuration keeps: the checkpoint was saved with other activations, "
          "weight_gradient, optimizer.name, optimizer.moments or optimizer.rules; set them back, or start a new run in "
          "another output.path",
          file.string(), entry.name, entry.tensor.shape.str());
  }
}

/// Infinity (no validation yet) has no place in JSON: null stands for it.
nlohmann::json loss_to_json(double loss) {
  return std::isfinite(loss) ? nlohmann::json(loss) : nlohmann::json(nullptr);
}
double loss_from_json(const nlohmann::json& value) {
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::infinity();
}

constexpr const char* kByName = "name";
constexpr const char* kByOrder = "order";

/// Format 1 had streams by order only.
subspace::StreamsBy streams_of(const nlohmann::json& run) {
  const bool by_order = run["format"] == 1 || run.value("streams", kByName) == kByOrder;
  return by_order ? subspace::StreamsBy::order : subspace::StreamsBy::name;
}

std::string run_file_text(const RunConfig& config, const TrainState& state, subspace::StreamsBy streams) {
  const nlohmann::json run = {{"format", kFormat},
                              {"streams", streams == subspace::StreamsBy::name ? kByName : kByOrder},
                              {"step", state.step},
                              {"tokens", state.tokens},
                              {"best_step", state.best_step},
                              {"data_tokens", state.data_tokens},
                              {"best_validation_loss", loss_to_json(state.best_validation)},
                              {"last_validation_loss", loss_to_json(state.last_validation)},
                              {"config", nlohmann::json::parse(to_json(config))}};
  return run.dump(2) + "\n";
}

nlohmann::json read_run_file(const fs::path& folder) {
  const fs::path file = folder / kRunFile;
  nlohmann::json run = io::read_json(file);
  const bool whole = run.is_object() && run.contains("format") && run.contains("step") &&
                     run["step"].is_number_integer() && run.contains("tokens") && run.contains("config");
  check(whole, "{} is not the run file of a checkpoint: 'format', 'step', 'tokens' or 'config' is missing",
        file.string());
  check(run["format"] == 1 || run["format"] == kFormat, "{} has format {}; this llmz reads formats 1 and {}",
        file.string(), run["format"].dump(), kFormat);
  return run;
}

TrainState state_of(const nlohmann::json& run) {
  TrainState state;
  state.step = run["step"].get<int64_t>();
  state.tokens = run["tokens"].get<int64_t>();
  state.best_step = run.value("best_step", int64_t{0});
  state.data_tokens = run.value("data_tokens", int64_t{0});
  state.best_validation = loss_from_json(run.value("best_validation_loss", nlohmann::json()));
  state.last_validation = loss_from_json(run.value("last_validation_loss", nlohmann::json()));
  return state;
}

std::shared_ptr<text::Tokenizer> tokenizer_in(const fs::path& folder) {
  for (const std::string& name : text::tokenizer_files()) {
    if (fs::exists(folder / name)) return text::load_tokenizer(folder);
  }
  return nullptr;
}

}  // namespace

void save_checkpoint(const fs::path& to, engine::Engine& engine, const RunConfig& config,
                     const text::Tokenizer* tokenizer, const TrainState& state) {
  engine::WholeState whole(engine.exec(), engine.optimizer());
  const auto states = state_entries(engine, whole);
  if (engine.ranks().rank() > 0) {  // the others' part in what rank 0 fetches
    for (const io::SafetensorsEntry* entry : io::in_file_order(states)) {
      if (entry->fetch) entry->fetch();
    }
    return;
  }
  io::CheckpointWriter writer(to);
  const auto weights = weight_entries(engine.model());
  writer.add(kModelFile, io::write_safetensors(writer.path(kModelFile), weights, {{"format", "pt"}}, &engine.memory()));
  writer.add(kOptimizerFile, io::write_safetensors(writer.path(kOptimizerFile), states, {}, &engine.memory()));

  model::HfOptions hf;
  if (tokenizer != nullptr) {
    hf.bos_token_id = tokenizer->bos().value_or(-1);
    hf.eos_token_id = tokenizer->eos().value_or(-1);
    tokenizer->save(writer.path(kModelConfigFile).parent_path());
    for (const std::string& name : text::tokenizer_files()) {
      if (fs::exists(writer.path(name))) writer.add(name);
    }
  }
  io::write_text(writer.path(kModelConfigFile), model::to_hf_config(config.model, hf));
  writer.add(kModelConfigFile);
  io::write_text(writer.path(kRunFile), run_file_text(config, state, engine.options().build.streams));
  writer.add(kRunFile);
  writer.commit({{"step", state.step}});
}

TrainState load_checkpoint(const fs::path& from, engine::Engine& engine, dist::World& world) {
  const fs::path file = from / kOptimizerFile;
  engine::WholeState whole(engine.exec(), engine.optimizer());
  bool masters = false;
  nlohmann::json run;
  world.together([&] {
    if (!world.leads()) return;
    io::open_checkpoint(from, /*verify_checksums=*/false);
    read_entries(from / kModelFile, weight_entries(engine.model()), engine.memory());
    masters = read_masters_into_weights(file, engine);
    std::vector<io::SafetensorsEntry> states = state_entries(engine, whole);
    std::erase_if(states, [&](auto& e) { return !masters && e.name.starts_with(std::string(kMaster) + "."); });
    check_same_method(file, states);
    run = read_run_file(from);
    check(streams_of(run) == engine.options().build.streams,
          "the random streams of {} are told apart otherwise than this engine's: build it with read_streams()",
          from.string());
  });
  run = nlohmann::json::parse(world.broadcast(nlohmann::json{{"run", run}, {"masters", masters}}.dump()));
  masters = run["masters"].get<bool>();
  engine.share_weights();
  load_states(from, engine, whole, masters, world.leads());
  return state_of(run["run"]);
}

TrainState load_checkpoint(const fs::path& from, engine::Engine& engine) {
  return load_checkpoint(from, engine, *dist::make_single_world());
}

subspace::StreamsBy read_streams(const fs::path& from) { return streams_of(read_run_file(from)); }

RunConfig read_run_config(const fs::path& from) {
  RunConfig config = parse_run_config(read_run_file(from)["config"].dump(), (from / kRunFile).string() + ": config");
  if (config.precision.compute == Compute::automatic) config.precision.compute = stored_compute(from / kModelFile);
  return config;
}

void load_weights(const fs::path& from, model::Model& model, Memory& memory) {
  read_entries(from / kModelFile, weight_entries(model), memory);
}

CheckpointHeader open_model(const fs::path& from) {
  check(fs::exists(from), "there is no checkpoint at {}", from.string());
  CheckpointHeader header;
  header.folder = from;
  if (fs::is_directory(from / "checkpoints")) {
    const auto newest = io::latest_checkpoint(from, /*verify_checksums=*/true);
    check(newest.has_value(), "run folder {} holds no finished checkpoint yet", from.string());
    header.folder = *newest;
  }
  const fs::path config = header.folder / kModelConfigFile;
  check(fs::exists(config) && fs::exists(header.folder / kModelFile),
        "{} is no checkpoint: it must hold {} and {}, as a llmz checkpoint or a Hugging Face folder does",
        from.string(), kModelConfigFile, kModelFile);
  if (fs::exists(header.folder / kRunFile)) {
    if (header.folder == from) io::open_checkpoint(from, /*verify_checksums=*/true);
    header.state = state_of(read_run_file(header.folder));
    header.run = read_run_config(header.folder);
    header.model = header.run->model;
  } else {
    header.model = model::from_hf_config(io::read_text(config), config.string());
  }
  header.tokenizer = tokenizer_in(header.folder);
  return header;
}

}  // namespace llmz::run
