#include "llmz/model/settings.h"

#include "llmz/model/model.h"

namespace llmz::model {

config::Fields<ModelConfig> model_fields() {
  using config::above, config::between;
  using M = ModelConfig;
  // Above what any machine trains, and below what would overflow a product of two of them.
  constexpr double kMaxWidth = 1 << 20;
  return config::Fields<M>()
      .key("architecture", &M::architecture, "LLaMA or GPT-2", config::one_of(architectures()))
      .key("vocab_size", &M::vocab_size, "token ids are below this; at least the tokenizer's size",
           between(1, std::numeric_limits<int32_t>::max()))
      .key("hidden", &M::hidden, "width of the residual stream", between(1, kMaxWidth))
      .key("intermediate", &M::intermediate, "width of the MLP", between(1, kMaxWidth))
      .key("layers", &M::layers, "number of blocks", between(1, 10000))
      .key("heads", &M::heads, "attention heads; they divide `hidden`", between(1, kMaxWidth))
      .key("kv_heads", &M::kv_heads, "key/value heads, a divisor of `heads`; 0 = as many as `heads`; llama only",
           between(0, kMaxWidth))
      .key("context", &M::context, "longest sequence; the number of learned positions of gpt2", between(1, 1 << 24))
      .key("norm_eps", &M::norm_eps, "added to the variance in RMSNorm and LayerNorm; GPT-2's own value is 1e-5",
           above(0))
      .key("rope_base", &M::rope_base, "base of the rotary embedding; llama only", above(1))
      .key("init_std", &M::init_std, "standard deviation of the initial weights", config::at_least(0));
}

}  // namespace llmz::model
