#include "llmz/model/hf_config.h"

#include <cmath>
#include <initializer_list>
#include <limits>

#include <nlohmann/json.hpp>

#include "llmz/core/decimal.h"
#include "llmz/core/error.h"
#include "llmz/model/model.h"

namespace llmz::model {
namespace {

using Json = nlohmann::ordered_json;

/// Reads one config.json; every error names the file and the key.
class HfReader {
 public:
  HfReader(std::string_view text, const std::string& source) : source_(source) {
    try {
      root_ = Json::parse(text);
    } catch (const Json::exception& error) {
      fail("{}: not valid JSON: {}", source_, error.what());
    }
    check(root_.is_object(), "{}: must be a JSON object", source_);
  }

  /// Absent and null are the same to Hugging Face.
  bool has(const char* key) const { return root_.contains(key) && !root_[key].is_null(); }

  int64_t count(const char* key) const {
    check(has(key), "{}: key \"{}\" is missing", source_, key);
    const Json& value = root_[key];
    check(value.is_number_integer() && value >= 1 && value <= std::numeric_limits<int32_t>::max(),
          "{}: \"{}\" = {} must be a whole number from 1 to {}", source_, key, value.dump(),
          std::numeric_limits<int32_t>::max());
    return value.get<int64_t>();
  }
  int64_t count(const char* key, int64_t otherwise) const { return has(key) ? count(key) : otherwise; }

  float number(const char* key, float otherwise) const { return has(key) ? to_number(key, root_[key]) : otherwise; }

  std::string text(const char* key, const std::string& otherwise) const {
    if (!has(key)) return otherwise;
    check(root_[key].is_string(), "{}: \"{}\" = {} must be a text", source_, key, root_[key].dump());
    return root_[key].get<std::string>();
  }

  /// Throws unless `key` is absent or one of the values that mean what llmz computes.
  void only(const char* key, std::initializer_list<Json> accepted, const char* why) const {
    if (!has(key)) return;
    for (const Json& value : accepted) {
      if (root_[key] == value) return;
    }
    fail("{}: \"{}\" = {} is not supported: {}", source_, key, root_[key].dump(), why);
  }

  /// Base of the rotary embedding, from `rope_theta` or transformers 5's `rope_parameters`.
  float rope_base() const {
    float base = number("rope_theta", 10000.0f);
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
      if (!has(key)) continue;
      const Json& rope = root_[key];
      check(rope.is_object(), "{}: \"{}\" = {} must be an object", source_, key, rope.dump());
      const Json type = rope.value("rope_type", rope.value("type", Json()));
      check(type == "default", "{}: \"{}\" = {} is not supported: llmz has plain rotary embedding only", source_, key,
            rope.dump());
      if (rope.contains("rope_theta")) base = to_number("rope_theta", rope["rope_theta"]);
    }
    return base;
  }

  const std::string& source() const { return source_; }

 private:
  float to_number(const char* key, const Json& value) const {
    check(value.is_number(), "{}: \"{}\" = {} must be a number", source_, key, value.dump());
    const float result = static_cast<float>(value.get<double>());
    check(std::isfinite(result), "{}: \"{}\" = {} does not fit a 32-bit float", source_, key, value.dump());
    return result;
  }

  std::string source_;
  Json root_;
};

Json id_or_null(int64_t id) { return id >= 0 ? Json(id) : Json(); }

Json llama_to_hf(const ModelConfig& c) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", c.vocab_size},
          {"hidden_size", c.hidden},
          {"intermediate_size", c.intermediate},
          {"num_hidden_layers", c.layers},
          {"num_attention_heads", c.heads},
          {"num_key_value_heads", c.kv_heads_or_heads()},
          {"max_position_embeddings", c.context},
          {"hidden_act", "silu"},
          {"rms_norm_eps", decimal_double(c.norm_eps)},
          {"rope_theta", decimal_double(c.rope_base)},
          {"rope_scaling", nullptr},
          {"attention_bias", false},
          {"mlp_bias", false},
          {"attention_dropout", 0.0},
          {"initializer_range", decimal_double(c.init_std)},
          {"tie_word_embeddings", false}};
}

Json gpt2_to_hf(const ModelConfig& c) {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"vocab_size", c.vocab_size},
          {"n_embd", c.hidden},
          {"n_inner", c.intermediate},
          {"n_layer", c.layers},
          {"n_head", c.heads},
          {"n_positions", c.context},
          {"n_ctx", c.context},
          {"activation_function", "gelu_new"},
          {"layer_norm_epsilon", decimal_double(c.norm_eps)},
          {"embd_pdrop", 0.0},
          {"attn_pdrop", 0.0},
          {"resid_pdrop", 0.0},
          {"initializer_range", decimal_double(c.init_std)},
          {"tie_word_embeddings", true}};
}

ModelConfig llama_from_hf(const HfReader& hf) {
  hf.only("hidden_act", {"silu", "swish"}, "llama's MLP is SwiGLU here");
  hf.only("attention_bias", {false}, "llama's linear layers have no bias here");
  hf.only("mlp_bias", {false}, "llama's linear layers have no bias here");
  hf.only("tie_word_embeddings", {false}, "llama's head has weights of its own here");
  hf.only("partial_rotary_factor", {1.0}, "rotary embedding turns whole heads here");
  hf.only("sliding_window", {}, "attention sees the whole context here");
  ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = hf.count("vocab_size");
  c.hidden = hf.count("hidden_size");
  c.intermediate = hf.count("intermediate_size");
  c.layers = hf.count("num_hidden_layers");
  c.heads = hf.count("num_attention_heads");
  const int64_t kv_heads = hf.count("num_key_value_heads", c.heads);
  c.kv_heads = kv_heads == c.heads ? 0 : kv_heads;
  c.context = hf.count("max_position_embeddings");
  c.norm_eps = hf.number("rms_norm_eps", 1e-6f);
  c.rope_base = hf.rope_base();
  c.init_std = hf.number("initializer_range", 0.02f);
  hf.only("head_dim", {c.hidden / c.heads}, "a head is hidden_size / num_attention_heads wide here");
  return c;
}

ModelConfig gpt2_from_hf(const HfReader& hf) {
  hf.only("activation_function", {"gelu_new", "gelu_pytorch_tanh"}, "GPT-2's activation is tanh GELU (gelu_new) here");
  hf.only("tie_word_embeddings", {true}, "GPT-2's head is the token embedding here");
  hf.only("scale_attn_weights", {true}, "attention is scaled by 1/sqrt(head width) here");
  hf.only("scale_attn_by_inverse_layer_idx", {false}, "attention is scaled by 1/sqrt(head width) here");
  hf.only("add_cross_attention", {false}, "there is no cross-attention here");
  ModelConfig c;
  c.architecture = "gpt2";
  c.vocab_size = hf.count("vocab_size");
  c.hidden = hf.count("n_embd");
  c.intermediate = hf.count("n_inner", 4 * c.hidden);
  c.layers = hf.count("n_layer");
  c.heads = hf.count("n_head");
  c.context = hf.count("n_positions");
  c.norm_eps = hf.number("layer_norm_epsilon", 1e-5f);
  c.init_std = hf.number("initializer_range", 0.02f);
  return c;
}

struct Architecture {
  const char* name;  ///< of llmz's registry; Hugging Face's `model_type` is the same
  Json (*to_hf)(const ModelConfig&);
  ModelConfig (*from_hf)(const HfReader&);
};

constexpr Architecture kArchitectures[] = {{"llama", llama_to_hf, llama_from_hf}, {"gpt2", gpt2_to_hf, gpt2_from_hf}};

}  // namespace

std::string to_hf_config(const ModelConfig& config, const HfOptions& options) {
  validate(config);
  for (const Architecture& architecture : kArchitectures) {
    if (config.architecture != architecture.name) continue;
    Json json = architecture.to_hf(config);
    json["bos_token_id"] = id_or_null(options.bos_token_id);
    json["eos_token_id"] = id_or_null(options.eos_token_id);
    json["torch_dtype"] = options.torch_dtype;
    json["use_cache"] = true;
    return json.dump(2) + "\n";
  }
  fail("model.architecture \"{}\" has no Hugging Face counterpart", config.architecture);
}

ModelConfig from_hf_config(std::string_view json, const std::string& source) {
  const HfReader hf(json, source);
  const std::string type = hf.text("model_type", "");
  for (const Architecture& architecture : kArchitectures) {
    if (type != architecture.name) continue;
    hf.only("quantization_config", {}, "the weights must not be quantised");
    const ModelConfig config = architecture.from_hf(hf);
    try {
      validate(config);
    } catch (const Error& error) {
      fail("{}: {}", source, error.what());
    }
    return config;
  }
  fail("{}: \"model_type\" = \"{}\" is not supported; supported: {}", source, type, fmt::join(architectures(), ", "));
}

}  // namespace llmz::model
