#include "llmz/model/settings.h"

#include <algorithm>

#include "llmz/model/model.h"
#include "src/model/architecture.h"

namespace llmz::model {
namespace {

/// "LLaMA or GPT-2"
std::string titles() {
  std::string text;
  const auto& rows = registry();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i > 0) text += i + 1 == rows.size() ? " or " : ", ";
    text += rows[i].title;
  }
  return text;
}

/// "llama only": the architectures that take `key`, of those that not all take.
std::string only(const std::string& key) {
  std::vector<std::string> names;
  for (const Architecture& row : registry()) {
    if (std::find(row.keys.begin(), row.keys.end(), key) != row.keys.end()) names.emplace_back(row.name);
  }
  return fmt::format("{} only", fmt::join(names, ", "));
}

}  // namespace

config::Fields<ModelConfig> model_fields() {
  using config::above, config::between;
  using M = ModelConfig;
  // Above what any machine trains, and below what would overflow a product of two of them.
  constexpr double kMaxWidth = 1 << 20;
  config::Fields<M> own;
  for (const Architecture& row : registry()) own.merge(row.fields);
  return config::Fields<M>()
      .key("architecture", &M::architecture, titles(), config::one_of(architectures()))
      .key("vocab_size", &M::vocab_size, "token ids are below this; at least the tokenizer's size",
           between(1, std::numeric_limits<int32_t>::max()))
      .key("hidden", &M::hidden, "width of the residual stream", between(1, kMaxWidth))
      .key("intermediate", &M::intermediate, "width of the MLP", between(1, kMaxWidth))
      .key("layers", &M::layers, "number of blocks", between(1, 10000))
      .key("heads", &M::heads, "attention heads; they divide `hidden`", between(1, kMaxWidth))
      .key("kv_heads", &M::kv_heads,
           "key/value heads, a divisor of `heads`; 0 = as many as `heads`; " + only("kv_heads"), between(0, kMaxWidth))
      .key("context", &M::context, "longest sequence; the number of learned positions of gpt2", between(1, 1 << 24))
      .key("norm_eps", &M::norm_eps, "added to the variance in RMSNorm and LayerNorm; GPT-2's own value is 1e-5",
           above(0))
      .key("rope_base", &M::rope_base, "base of the rotary embedding; " + only("rope_base"), above(1))
      .key("init_std", &M::init_std, "standard deviation of the initial weights", config::at_least(0))
      .merge(own);
}

}  // namespace llmz::model
