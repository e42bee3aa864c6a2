#include "llmz/model/config.h"

#include <algorithm>
#include <cmath>

#include "llmz/core/error.h"
#include "src/model/architecture.h"

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
}

/// Keys that only some architectures take.
void check_keys(const ModelConfig& c, const Architecture& architecture) {
  const auto check_key = [&](const char* key, auto value, bool says_something) {
    const auto& keys = architecture.keys;
    check(!says_something || std::find(keys.begin(), keys.end(), key) != keys.end(),
          "model.{} = {} does not fit model.architecture \"{}\", which has no such key; leave model.{} out", key, value,
          c.architecture, key);
  };
  check_key("kv_heads", c.kv_heads, c.kv_heads_or_heads() != c.heads);
  check_key("rope_base", c.rope_base, c.rope_base != ModelConfig().rope_base);
}

}  // namespace

void validate(const ModelConfig& c) {
  const Architecture& architecture = find_architecture(c.architecture);
  check_counts(c);
  check_heads(c);
  check_keys(c, architecture);
  if (architecture.check != nullptr) architecture.check(c);
  check(std::isfinite(c.norm_eps) && c.norm_eps > 0, "model.norm_eps = {} must be above 0", c.norm_eps);
  check(std::isfinite(c.rope_base) && c.rope_base > 1, "model.rope_base = {} must be above 1", c.rope_base);
  check(std::isfinite(c.init_std) && c.init_std >= 0, "model.init_std = {} must be at least 0", c.init_std);
}

}  // namespace llmz::model
