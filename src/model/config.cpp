#include "llmz/model/config.h"

#include <algorithm>
#include <cmath>

#include "llmz/core/error.h"
#include "llmz/model/model.h"

namespace llmz::model {
namespace {

void check_counts(const ModelConfig& c) {
  struct Count {
    const char* key;
    int64_t value;
  };
  for (const auto& [key, value] :
       {Count{"vocab_size", c.vocab_size}, Count{"hidden", c.hidden}, Count{"intermediate", c.intermediate},
        Count{"layers", c.layers}, Count{"heads", c.heads}, Count{"context", c.context}}) {
    check(value >= 1, "model.{} = {} must be at least 1", key, value);
  }
  check(c.kv_heads >= 0, "model.kv_heads = {} must not be negative (0 means as many as model.heads)", c.kv_heads);
}

void check_heads(const ModelConfig& c) {
  check(c.hidden % c.heads == 0, "model.hidden = {} must be a multiple of model.heads = {}", c.hidden, c.heads);
  check(c.heads % c.kv_heads_or_heads() == 0, "model.heads = {} must be a multiple of model.kv_heads = {}", c.heads,
        c.kv_heads_or_heads());
  if (c.architecture == "gpt2") {
    check(c.kv_heads_or_heads() == c.heads,
          "model.kv_heads = {} does not fit model.architecture \"gpt2\", which has as many key/value heads as "
          "model.heads = {}; leave model.kv_heads out",
          c.kv_heads, c.heads);
  }
  if (c.architecture == "llama") {
    check(c.head_dim() % 2 == 0,
          "model.hidden / model.heads = {} / {} = {} must be even: rotary embedding turns pairs of features", c.hidden,
          c.heads, c.head_dim());
  }
}

}  // namespace

void validate(const ModelConfig& c) {
  const std::vector<std::string> known = architectures();
  check(std::find(known.begin(), known.end(), c.architecture) != known.end(),
        "model.architecture \"{}\" is unknown; known: {}", c.architecture, fmt::join(known, ", "));
  check_counts(c);
  check_heads(c);
  check(std::isfinite(c.norm_eps) && c.norm_eps > 0, "model.norm_eps = {} must be above 0", c.norm_eps);
  check(std::isfinite(c.rope_base) && c.rope_base > 1, "model.rope_base = {} must be above 1", c.rope_base);
  check(std::isfinite(c.init_std) && c.init_std >= 0, "model.init_std = {} must be at least 0", c.init_std);
}

}  // namespace llmz::model
