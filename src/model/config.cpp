#include "llmz/model/config.h"

#include <algorithm>
#include <cmath>

#include "llmz/config/schema.h"
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
  const auto refuse = [&](const std::string& key, const std::string& value) {
    fail("model.{0} = {1} does not fit model.architecture \"{2}\", which has no such key; leave model.{0} out", key,
         value, c.architecture);
  };
  const auto takes = [&](const char* key) {
    return std::find(architecture.keys.begin(), architecture.keys.end(), key) != architecture.keys.end();
  };
  if (c.kv_heads_or_heads() != c.heads && !takes("kv_heads")) refuse("kv_heads", fmt::format("{}", c.kv_heads));
  if (c.rope_base != ModelConfig().rope_base && !takes("rope_base")) {
    refuse("rope_base", fmt::format("{}", c.rope_base));
  }
  const auto has = [&](const config::Field& field) {
    const auto& own = architecture.fields.rows();
    return std::any_of(own.begin(), own.end(), [&](const config::Field& each) { return each.path == field.path; });
  };
  ModelConfig given = c, defaults;
  for (const Architecture& other : registry()) {
    for (const config::Field& field : other.fields.rows()) {
      const config::Json value = config::value_of(field, &given);
      if (!has(field) && value != config::value_of(field, &defaults)) refuse(field.path, config::shown(value));
    }
  }
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
