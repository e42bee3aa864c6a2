#include "llmz/report/starter.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "llmz/core/builtin.h"
#include "llmz/core/error.h"
#include "llmz/core/system.h"
#include "llmz/data/dataset.h"
#include "llmz/engine/engine.h"
#include "llmz/engine/matmul_peak.h"
#include "llmz/report/bench.h"
#include "llmz/report/step_runner.h"
#include "llmz/run/config_io.h"
#include "llmz/run/placement.h"
#include "llmz/run/presets.h"

namespace llmz::report {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kTokensPerParameter = 20, kPasses = 4;
constexpr double kShareOfPeak = 0.7;   // of a product's speed that whole steps reach, to choose a model by
constexpr double kShareOfTime = 0.92;  // that is left beside validation and checkpoints
constexpr double kFewestSteps = 2000;  // wanted before a step is given more windows
constexpr int64_t kLeastWindows = 8, kMostWindows = 512;  // in a step
constexpr int64_t kMostMicroBatch = 32;
constexpr int64_t kEnoughTokens = 2048;  // in a micro-step, for products that keep a processor busy
constexpr int64_t kSequence = 256;       // the papers'
constexpr const char* kPresets[] = {"full", "quant4", "lean"};  // from exact to least memory

/// A model with the method that fits the memory.
struct Candidate {
  std::string name;
  run::RunConfig config;
  int64_t parameters = 0;
  int64_t micro_batch = 0;  ///< the largest that fits; 0: not even one window
  std::string preset;
  size_t smallest_plan = 0;  ///< bytes of the leanest
};

/// What the process takes of the machine beside `planned` is code and libraries (docs/architecture.md, Memory).
bool fits(size_t planned, int64_t memory, Device device) {
  const auto bytes = static_cast<double>(planned);
  const double process = device.type == DeviceType::cpu ? 1.05 * bytes + 200e6 : bytes;
  return process <= static_cast<double>(memory);
}

size_t plan_bytes(run::RunConfig config, int64_t micro_batch) {
  config.train.micro_batch = config.train.global_batch = micro_batch;
  return engine::Engine::plan(run::engine_options(config)).arena_bytes;
}

class Chooser {
 public:
  explicit Chooser(const StarterRequest& request)
      : request_(request),
        device_(device_from_name(request.device.empty() ? "auto" : request.device)),
        data_(data::Dataset::open(std::vector<std::string>{request.data}, data::Split::train)) {
    if (request.preset.empty()) {
      presets_.assign(std::begin(kPresets), std::end(kPresets));
    } else {
      presets_ = {request.preset};
    }
    memory_ = request.memory > 0 ? request.memory : free_memory();
  }

  int64_t memory() const { return memory_; }
  double data_tokens() const { return static_cast<double>(data_.tokens()); }
  int64_t vocabulary() const { return data_.vocab_size(); }
  Device device() const { return device_; }

  /// The largest model that all is enough for, or else the smallest that fits the memory.
  Candidate choose() const {
    std::vector<Candidate> all;
    for (const std::string& name : model_names()) all.push_back(candidate(name));
    std::sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.parameters < b.parameters; });
    const Candidate* best = nullptr;
    for (const Candidate& c : all) {
      if (c.micro_batch == 0) continue;
      if (best == nullptr || (enough_data(c) && enough_time(c))) best = &c;
    }
    check(best != nullptr,
          "{} takes {:.2f} GB at least, and {:.2f} GB are to be used, of which code and libraries take 0.2: raise "
          "--memory, or name a smaller --model",
          all.front().name, static_cast<double>(all.front().smallest_plan) * 1e-9, static_cast<double>(memory_) * 1e-9);
    return *best;
  }

  bool enough_data(const Candidate& c) const { return wanted(c) <= kPasses * data_tokens(); }
  bool enough_time(const Candidate& c) const {
    return request_.seconds <= 0 || wanted(c) <= estimated_speed(c.config) * request_.seconds;
  }
  static double wanted(const Candidate& c) { return kTokensPerParameter * static_cast<double>(c.parameters); }

  /// Tokens a second, from the operations that a step counts and the speed of a product.
  double estimated_speed(const run::RunConfig& config) const {
    const engine::EngineOptions options = run::engine_options(config);
    if (peak_ == 0) peak_ = engine::measure_matmul_peak(device_, options.build.precision.activation, options.tf32);
    const auto tokens = static_cast<double>(options.micro_batch * options.sequence);
    return kShareOfPeak * peak_ * tokens / engine::Engine::flops_per_micro_step(options);
  }

 private:
  int64_t free_memory() const {
    const auto bytes = static_cast<double>(device_.type == DeviceType::cpu
                                               ? memory_info().available
                                               : cuda_info().devices.at(static_cast<size_t>(device_.index)).memory);
    return static_cast<int64_t>(0.9 * bytes);
  }

  std::vector<std::string> model_names() const {
    if (!request_.model.empty()) return {request_.model};
    std::vector<std::string> names = builtin_names(builtin_models());
    std::erase_if(names, [](const std::string& name) { return !name.starts_with("llama-"); });
    return names;
  }

  Candidate candidate(const std::string& name) const {
    Candidate c;
    c.name = name;
    Json json = {{"model", {{"base", name}}}, {"data", {{"path", request_.data}}}};
    if (vocabulary() > 0) json["model"]["vocab_size"] = vocabulary();
    if (!request_.device.empty()) json["train"]["device"] = request_.device;
    std::vector<std::string> overrides = {"train.micro_batch=1", "train.global_batch=1", "train.sequence=1"};
    c.config = run::parse_run_config(json.dump(), request_.file, overrides);
    c.config.train.sequence = std::min(kSequence, c.config.model.context);
    check(data_.tokens() > c.config.train.sequence, "{} holds {} training tokens, fewer than one window of {}",
          request_.data, data_.tokens(), c.config.train.sequence);
    Memory recorder;
    c.parameters = model::make_model(c.config.model, {}, recorder)->parameter_count();
    choose_method(c);
    return c;
  }

  /// The first preset with a micro-batch that is large enough; else the one with the largest.
  void choose_method(Candidate& c) const {
    const run::RunConfig plain = c.config;
    for (const std::string& preset : presets_) {
      const run::RunConfig config = run::with_preset(plain, preset);
      size_t smallest = 0;
      const int64_t micro_batch = largest_micro_batch(config, smallest);
      if (c.smallest_plan == 0 || smallest < c.smallest_plan) c.smallest_plan = smallest;
      if (micro_batch > c.micro_batch) {
        c.micro_batch = micro_batch;
        c.preset = preset;
        c.config = config;
      }
      if (c.micro_batch * c.config.train.sequence >= kEnoughTokens) break;
    }
    c.config.train.micro_batch = c.config.train.global_batch = std::max<int64_t>(c.micro_batch, 1);
  }

  int64_t largest_micro_batch(const run::RunConfig& config, size_t& smallest) const {
    int64_t largest = 0;
    for (int64_t windows = 1; windows <= kMostMicroBatch; windows *= 2) {
      const size_t planned = plan_bytes(config, windows);
      if (windows == 1) smallest = planned;
      if (!fits(planned, memory_, device_)) break;
      largest = windows;
    }
    return largest;
  }

  const StarterRequest& request_;
  Device device_;
  data::Dataset data_;
  std::vector<std::string> presets_;
  int64_t memory_ = 0;
  mutable double peak_ = 0;
};

/// The built-in configuration whose rates a model of `parameters` takes over.
struct Example {
  std::string name;
  run::RunConfig config;
  Json json;
};

Example nearest_example(int64_t parameters) {
  std::optional<Example> best;
  double least = 0;
  for (const BuiltinFile& file : builtin_configs()) {
    Example example{std::string(file.name), run::load_run_config(std::string(file.name)),
                    Json::parse(file.text, nullptr, true, /*ignore_comments=*/true)};
    if (example.json.contains("preset") || example.config.model.architecture != model::ModelConfig().architecture)
      continue;
    Memory recorder;
    const int64_t count = model::make_model(example.config.model, {}, recorder)->parameter_count();
    const double distance = std::abs(std::log(static_cast<double>(count) / static_cast<double>(parameters)));
    if (best && distance >= least) continue;
    least = distance;
    best = std::move(example);
  }
  return *best;
}

/// Seconds of a step with `micro_steps` micro-steps, over steps that are run.
double measure_step(const run::RunConfig& config, int64_t micro_steps) {
  engine::Engine engine(run::engine_options(config));
  engine.initialise(config.train.seed);
  StepRunner runner(engine, config);
  StepTimes warm_up, times;
  runner.run(warm_up);
  for (int i = 0; i < 3; ++i) runner.run(times);
  return median_of(times.begin) + static_cast<double>(micro_steps) * median_of(times.micro) + median_of(times.update);
}

/// Steps and windows for `tokens` in all.
void set_batches(run::RunConfig& config, int64_t largest_micro_batch, double tokens) {
  const auto sequence = static_cast<double>(config.train.sequence);
  int64_t windows = kLeastWindows;
  while (windows * 2 <= kMostWindows && tokens / (static_cast<double>(windows * 2) * sequence) >= kFewestSteps) {
    windows *= 2;
  }
  config.train.global_batch = windows;
  config.train.micro_batch = std::min(largest_micro_batch, windows);
  config.train.steps = std::max<int64_t>(1, std::llround(tokens / (static_cast<double>(windows) * sequence)));
}

std::string gigabytes(double bytes) { return fmt::format("{:.2f} GB", bytes * 1e-9); }

/// What a key of the example's optimizer or schedule means.
std::string meaning(const std::string& key) {
  static const std::pair<const char*, const char*> kMeanings[] = {
      {"optimizer.lr", "The learning rate at its highest"},
      {"optimizer.beta1", "How much of the mean of past gradients AdamW keeps each step"},
      {"optimizer.beta2", "How much of the mean of their squares it keeps"},
      {"optimizer.weight_decay", "How strongly weights are drawn to zero"},
      {"optimizer.lr_scale.blocks", "The blocks' matrices learn at this part of the rate"},
      {"schedule.kind", "How the rate falls after its warm-up"},
      {"schedule.warmup", "The part of the steps in which the rate rises"},
      {"schedule.final_fraction", "What is left of the rate at the end"}};
  for (const auto& [name, text] : kMeanings) {
    if (key == name) return text;
  }
  return "A setting of " + key.substr(0, key.find('.'));
}

/// All keys of `object` with what they hold, "optimizer.lr" and so on.
void add_section(std::vector<ChosenKey>& choices, const Json& object, const std::string& path,
                 const std::string& source) {
  for (const auto& [name, value] : object.items()) {
    const std::string key = path + "." + name;
    if (value.is_object()) {
      add_section(choices, value, key, source);
    } else {
      choices.push_back({key, value, meaning(key) + ", " + source + "."});
    }
  }
}

std::string why_model(const Chooser& chooser, const StarterRequest& request, const Candidate& c) {
  const std::string size = fmt::format("{:.2f} M parameters", static_cast<double>(c.parameters) * 1e-6);
  if (!request.model.empty()) return fmt::format("As asked for: {}.", size);
  if (!chooser.enough_data(c) || !chooser.enough_time(c)) {
    return fmt::format(
        "{}, the smallest that is built in. It would learn from {:.1f} M tokens, 20 a parameter; there are fewer here.",
        size, Chooser::wanted(c) * 1e-6);
  }
  return fmt::format(
      "{}: the largest built-in LLaMA that fits the memory and whose {:.1f} M tokens, 20 a parameter, are there{}.",
      size, Chooser::wanted(c) * 1e-6, request.seconds > 0 ? " in time" : "");
}

std::string why_preset(const Candidate& c) {
  const int64_t tokens = c.micro_batch * c.config.train.sequence;
  if (tokens >= kEnoughTokens) return fmt::format("the most exact that fits with {} tokens at once", kEnoughTokens);
  return fmt::format("none fits with {} tokens at once, which keep a processor busy; this one takes {}", kEnoughTokens,
                     tokens);
}

std::string why_steps(const Chooser& chooser, const StarterRequest& request, const run::RunConfig& config,
                      double speed) {
  const double tokens = static_cast<double>(config.train.steps * config.train.global_batch * config.train.sequence);
  std::string text =
      fmt::format("{:.2f} M tokens, {:.2f} passes over the data", tokens * 1e-6, tokens / chooser.data_tokens());
  if (speed > 0) {
    text += fmt::format("; at {:.0f} tokens a second, measured here, {:.1f} minutes of the {:.1f} that are granted",
                        speed, tokens / speed / 60, request.seconds / 60);
  }
  return text + ". After four passes repeated text teaches little.";
}

/// The keys in the order of the documentation.
std::vector<ChosenKey> explain(const Chooser& chooser, const StarterRequest& request, const Candidate& c,
                               const Example& example, size_t planned, double speed) {
  const run::TrainConfig& t = c.config.train;
  std::vector<ChosenKey> choices = {{"model.base", c.name, why_model(chooser, request, c)}};
  if (chooser.vocabulary() > 0) {
    choices.push_back(
        {"model.vocab_size", chooser.vocabulary(), "The tokenizer's, with which the data were prepared."});
  }
  const std::string method = run::find_preset(c.preset)->meaning;
  choices.push_back({"preset", c.preset,
                     fmt::format("{}{}. `llmz plan --compare` tells what others take.", method,
                                 request.preset.empty() ? ": " + why_preset(c) : "")});
  choices.push_back({"data.path", request.data, fmt::format("{:.0f} training tokens.", chooser.data_tokens())});
  const std::string source = fmt::format("as in the built-in configuration {}, the nearest in size ({} windows a step)",
                                         example.name, example.config.train.global_batch);
  add_section(choices, example.json["optimizer"], "optimizer", source);
  add_section(choices, example.json["schedule"], "schedule", source);
  if (!request.device.empty()) choices.push_back({"train.device", request.device, "As asked for."});
  choices.push_back({"train.steps", t.steps, why_steps(chooser, request, c.config, speed)});
  choices.push_back({"train.sequence", t.sequence, "Tokens in a window; at most the model's context."});
  choices.push_back(
      {"train.micro_batch", t.micro_batch,
       fmt::format("Windows at once. The run's plan takes {} of the {} that it may; less where this is less.",
                   gigabytes(static_cast<double>(planned)), gigabytes(static_cast<double>(chooser.memory())))});
  choices.push_back({"train.global_batch", t.global_batch,
                     "Windows in a step: more than the least where there are steps enough to spare."});
  choices.push_back(
      {"train.eval_every", t.eval_every, "Steps between looks at the validation data: some twenty in all."});
  choices.push_back(
      {"output.path", request.output, "The run folder: checkpoints, metrics, this configuration in full."});
  choices.push_back(
      {"output.save_every", c.config.output.save_every, "Steps between checkpoints: four in all, and the best."});
  return choices;
}

}  // namespace

Starter make_starter(const StarterRequest& request) {
  const Chooser chooser(request);
  Candidate c = chooser.choose();
  const int64_t largest = c.micro_batch;
  const double worth = std::min(Chooser::wanted(c), kPasses * chooser.data_tokens());
  double tokens = worth, speed = 0;
  if (request.seconds > 0) {
    tokens = std::min(worth, chooser.estimated_speed(c.config) * request.seconds * kShareOfTime);
  }
  set_batches(c.config, largest, tokens);
  if (request.seconds > 0) {
    const run::TrainConfig& t = c.config.train;
    const auto in_step = static_cast<double>(t.global_batch * t.sequence);
    speed = in_step / measure_step(c.config, t.global_batch / t.micro_batch);
    tokens = std::min(worth, speed * request.seconds * kShareOfTime);
    c.config.train.steps = std::max<int64_t>(1, std::llround(std::floor(tokens / in_step)));
  }
  c.config.train.eval_every = std::max<int64_t>(1, c.config.train.steps / 20);
  c.config.output.save_every = std::max<int64_t>(1, (c.config.train.steps + 3) / 4);

  Starter starter;
  starter.parameters = c.parameters;
  starter.planned_bytes = plan_bytes(c.config, c.config.train.micro_batch);
  starter.tokens_per_second = speed;
  const std::string intro = fmt::format(
      "A first configuration for {}, written by `llmz init`. `llmz plan` tells its memory to the byte, `llmz train` "
      "runs it; docs/config.md lists every key, and what is not here stands at its default.",
      request.data);
  starter.text =
      commented_json(intro, explain(chooser, request, c, nearest_example(c.parameters), starter.planned_bytes, speed));
  starter.config = run::parse_run_config(starter.text, request.file);
  run::validate_for_training(starter.config);
  return starter;
}

}  // namespace llmz::report
