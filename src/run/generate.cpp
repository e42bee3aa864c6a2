#include "llmz/run/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "llmz/core/random.h"
#include "llmz/core/transfer.h"

namespace llmz::run {

int32_t sample_token(std::span<const float> logits, const SamplingOptions& options, double uniform) {
  check(std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }),
        "the model's logits are not finite: its weights are damaged or training diverged");
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  if (options.temperature <= 0) return *std::min_element(order.begin(), order.end(), likelier);
  std::sort(order.begin(), order.end(), likelier);
  if (options.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(options.top_k)));

  std::vector<double> cumulative(order.size());
  const double largest = static_cast<double>(logits[static_cast<size_t>(order.front())]);
  double sum = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const double logit = static_cast<double>(logits[static_cast<size_t>(order[i])]);
    sum += std::exp((logit - largest) / options.temperature);
    cumulative[i] = sum;
  }
  const auto nucleus = std::lower_bound(cumulative.begin(), cumulative.end(), options.top_p * sum);
  const auto last = nucleus == cumulative.end() ? nucleus - 1 : nucleus;
  const auto drawn = std::lower_bound(cumulative.begin(), last, uniform * *last);
  return order[static_cast<size_t>(drawn - cumulative.begin())];
}

struct Generator::Body {
  std::unique_ptr<model::Model> model;
  std::vector<nn::KvCache> caches;
  Tensor tokens, logits;

  Body(const model::ModelConfig& config, nn::Precision precision, int64_t prompt_tokens, int64_t capacity,
       Memory& memory) {
    model = model::make_model(config, {.precision = precision, .gradients = false}, memory);
    const Shape shape = {1, capacity, config.kv_heads_or_heads(), config.head_dim()};
    for (int64_t i = 0; i < config.layers; ++i) {
      const Tensor k =
          memory.persistent(fmt::format("layers.{}.cache.k", i), Category::codes, shape, precision.activation);
      const Tensor v =
          memory.persistent(fmt::format("layers.{}.cache.v", i), Category::codes, shape, precision.activation);
      caches.push_back({k, v});
    }
    tokens = memory.persistent("tokens", Category::activations, {1, prompt_tokens}, DType::i32);
    logits = memory.persistent("logits", Category::activations, {1, config.vocab_size}, DType::f32);
  }

  void prefill(Exec& exec) {
    const ProgramScope program(exec.memory, "prefill");
    model->generate(exec, logits, tokens, 0, caches);
  }
  /// The one token at tokens[0], which stands at `position`.
  void decode(Exec& exec, int64_t position) {
    const ProgramScope program(exec.memory, "decode", /*may_shrink=*/true);
    model->generate(exec, logits, tokens.slice(1, 0, 1), position, caches);
  }
};

Generator::Generator(const CheckpointHeader& checkpoint, int64_t prompt_tokens, int64_t new_tokens,
                     const Placement& placement)
    : prompt_tokens_(prompt_tokens), new_tokens_(new_tokens) {
  const int64_t capacity = prompt_tokens + new_tokens;
  check(prompt_tokens >= 1, "the prompt is empty: give at least one token");
  check(capacity <= checkpoint.model.context,
        "{} prompt tokens and {} new ones exceed the model's context of {}: shorten the prompt or lower --tokens",
        prompt_tokens, new_tokens, checkpoint.model.context);
  body_ = std::make_unique<Planned<Body>>(
      placement.device,
      [&](Memory& memory) { return Body(checkpoint.model, placement.precision, prompt_tokens, capacity, memory); },
      [&](Body& body, Exec& exec) {
        body.prefill(exec);
        body.decode(exec, capacity - 1);
      });
  Memory& memory = body_->memory();
  if (memory.gpu() != nullptr) memory.gpu()->set_tf32(placement.tf32);
  load_weights(checkpoint.folder, *(*body_)->model, memory);
}

Generator::~Generator() = default;

const MemoryPlan& Generator::memory_plan() const { return body_->memory().plan(); }

void Generator::run(std::span<const int32_t> prompt, const SamplingOptions& options, int32_t stop,
                    const std::function<bool(int32_t)>& on_token) {
  check(static_cast<int64_t>(prompt.size()) == prompt_tokens_, "planned for {} prompt tokens, got {}", prompt_tokens_,
        prompt.size());
  Body& body = **body_;
  Memory& memory = body_->memory();
  Exec& exec = body_->exec();
  const RandomStream random(options.seed, Purpose::sampling);
  copy_to_device<int32_t>(memory, body.tokens, prompt);

  body.prefill(exec);
  for (int64_t i = 0; i < new_tokens_; ++i) {
    const auto uniform = static_cast<double>(random.uniform(static_cast<uint64_t>(i)));
    const int32_t token = sample_token(host_copy<float>(memory, body.logits), options, uniform);
    if (token == stop || !on_token(token) || i + 1 == new_tokens_) return;
    const Tensor first = body.tokens.slice(1, 0, 1);
    copy_to_device<int32_t>(memory, first, std::span<const int32_t>(&token, 1));
    body.decode(exec, prompt_tokens_ + i);
  }
}

}  // namespace llmz::run
