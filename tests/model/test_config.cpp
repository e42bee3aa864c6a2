#include <cmath>
#include <functional>

#include <nlohmann/json.hpp>

#include "catch.h"
#include "errors.h"
#include "llmz/core/decimal.h"
#include "llmz/model/config.h"
#include "llmz/model/hf_config.h"

using namespace llmz;
using model::from_hf_config;
using model::ModelConfig;
using model::to_hf_config;
using model::validate;
using Json = nlohmann::json;

namespace {

ModelConfig changed(std::function<void(ModelConfig&)> change, ModelConfig config = {}) {
  change(config);
  return config;
}

ModelConfig small_llama() {
  return {.architecture = "llama",
          .vocab_size = 1000,
          .hidden = 96,
          .intermediate = 250,
          .layers = 3,
          .heads = 6,
          .kv_heads = 2,
          .context = 77,
          .norm_eps = 3e-6f,
          .rope_base = 500000.0f,
          .init_std = 0.013f};
}

ModelConfig small_gpt2() {
  return {.architecture = "gpt2",
          .vocab_size = 50257,
          .hidden = 96,
          .intermediate = 300,
          .layers = 3,
          .heads = 6,
          .context = 77,
          .norm_eps = 1e-5f};
}

void check_same(const ModelConfig& a, const ModelConfig& b) {
  CHECK(a.architecture == b.architecture);
  CHECK(a.vocab_size == b.vocab_size);
  CHECK(a.hidden == b.hidden);
  CHECK(a.intermediate == b.intermediate);
  CHECK(a.layers == b.layers);
  CHECK(a.heads == b.heads);
  CHECK(a.kv_heads == b.kv_heads);
  CHECK(a.context == b.context);
  CHECK(a.norm_eps == b.norm_eps);
  CHECK(a.rope_base == b.rope_base);
  CHECK(a.init_std == b.init_std);
}

/// The Hugging Face configuration of `config` with one key put in or changed.
std::string hf_with(const ModelConfig& config, const std::string& key, const Json& value) {
  Json json = Json::parse(to_hf_config(config));
  json[key] = value;
  return json.dump();
}

std::string hf_without(const ModelConfig& config, const std::string& key) {
  Json json = Json::parse(to_hf_config(config));
  json.erase(key);
  return json.dump();
}

}  // namespace

TEST_CASE("shapes that work are valid") {
  CHECK_NOTHROW(validate(ModelConfig{}));
  CHECK_NOTHROW(validate(small_llama()));
  CHECK_NOTHROW(validate(small_gpt2()));
  CHECK_NOTHROW(validate(changed([](auto& c) { c.hidden = 18, c.heads = 6; }, small_gpt2())));  // odd heads, no rotary
}

TEST_CASE("an impossible shape is an error that names its keys") {
  const auto bad = [](std::function<void(ModelConfig&)> change, ModelConfig config = {}) {
    return [=] { validate(changed(change, config)); };
  };
  CHECK_ERROR(bad([](auto& c) { c.architecture = "gpt3"; })(), "model.architecture", "gpt3", "llama", "gpt2");
  CHECK_ERROR(bad([](auto& c) { c.vocab_size = 0; })(), "model.vocab_size = 0");
  CHECK_ERROR(bad([](auto& c) { c.hidden = -8; })(), "model.hidden = -8");
  CHECK_ERROR(bad([](auto& c) { c.intermediate = 0; })(), "model.intermediate = 0");
  CHECK_ERROR(bad([](auto& c) { c.layers = 0; })(), "model.layers = 0");
  CHECK_ERROR(bad([](auto& c) { c.heads = 0; })(), "model.heads = 0");
  CHECK_ERROR(bad([](auto& c) { c.context = 0; })(), "model.context = 0");
  CHECK_ERROR(bad([](auto& c) { c.kv_heads = -1; })(), "model.kv_heads = -1");
  CHECK_ERROR(bad([](auto& c) { c.heads = 7; })(), "model.hidden = 512", "model.heads = 7");
  CHECK_ERROR(bad([](auto& c) { c.kv_heads = 3; })(), "model.heads = 8", "model.kv_heads = 3");
  CHECK_ERROR(bad([](auto& c) { c.hidden = 72; })(), "model.hidden / model.heads = 72 / 8 = 9", "even");
  CHECK_ERROR(bad([](auto& c) { c.kv_heads = 2; }, small_gpt2())(), "model.kv_heads = 2", "gpt2");
  CHECK_ERROR(bad([](auto& c) { c.rope_base = 500; }, small_gpt2())(), "model.rope_base = 500", "gpt2");
  CHECK_ERROR(bad([](auto& c) { c.norm_eps = 0; })(), "model.norm_eps = 0");
  CHECK_ERROR(bad([](auto& c) { c.norm_eps = std::nanf(""); })(), "model.norm_eps = nan");
  CHECK_ERROR(bad([](auto& c) { c.rope_base = 1; })(), "model.rope_base = 1");
  CHECK_ERROR(bad([](auto& c) { c.init_std = -0.5f; })(), "model.init_std = -0.5");
}

TEST_CASE("a shape survives the way through Hugging Face's config.json") {
  check_same(from_hf_config(to_hf_config(small_llama())), small_llama());
  check_same(from_hf_config(to_hf_config(small_gpt2())), small_gpt2());
  check_same(from_hf_config(to_hf_config(ModelConfig{})), ModelConfig{});
}

TEST_CASE("config.json says what transformers needs to know") {
  const Json llama = Json::parse(to_hf_config(small_llama(), {.torch_dtype = "bfloat16", .bos_token_id = 1}));
  CHECK(llama["architectures"] == Json{"LlamaForCausalLM"});
  CHECK(llama["model_type"] == "llama");
  CHECK(llama["num_key_value_heads"] == 2);
  CHECK(llama["rms_norm_eps"].dump() == "3e-06");  // not 2.9999999e-06
  CHECK(llama["tie_word_embeddings"] == false);
  CHECK(llama["torch_dtype"] == "bfloat16");
  CHECK(llama["bos_token_id"] == 1);
  CHECK(llama["eos_token_id"].is_null());

  const Json gpt2 = Json::parse(to_hf_config(small_gpt2()));
  CHECK(gpt2["architectures"] == Json{"GPT2LMHeadModel"});
  CHECK(gpt2["n_inner"] == 300);
  CHECK(gpt2["activation_function"] == "gelu_new");
  CHECK(gpt2["tie_word_embeddings"] == true);
  CHECK(gpt2["resid_pdrop"] == 0.0);
}

TEST_CASE("published configurations are understood") {
  SECTION("LLaMA-2 7B") {
    const ModelConfig c = from_hf_config(R"({
      "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
      "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 4096,
      "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
      "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null, "tie_word_embeddings": false,
      "torch_dtype": "float16", "transformers_version": "4.31.0.dev0", "use_cache": true, "vocab_size": 32000})");
    check_same(c, {.architecture = "llama",
                   .vocab_size = 32000,
                   .hidden = 4096,
                   .intermediate = 11008,
                   .layers = 32,
                   .heads = 32,
                   .context = 4096,
                   .norm_eps = 1e-5f});
  }
  SECTION("GPT-2 124M") {
    const ModelConfig c = from_hf_config(R"({
      "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "embd_pdrop": 0.1,
      "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768,
      "n_head": 12, "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "summary_type": "cls_index",
      "vocab_size": 50257})");
    check_same(c, {.architecture = "gpt2",
                   .vocab_size = 50257,
                   .hidden = 768,
                   .intermediate = 3072,
                   .layers = 12,
                   .heads = 12,
                   .context = 1024,
                   .norm_eps = 1e-5f});
  }
  SECTION("rope_parameters, as transformers 5 writes them") {
    const Json rope = {{"rope_type", "default"}, {"rope_theta", 250000.0}};
    const auto text = hf_with(small_llama(), "rope_parameters", rope);
    CHECK(from_hf_config(text).rope_base == 250000.0f);
  }
}

TEST_CASE("what llmz does not compute is refused, not passed over") {
  const auto refused = [](const ModelConfig& config, const std::string& key, const Json& value) {
    INFO(key);
    CHECK_ERROR(from_hf_config(hf_with(config, key, value), "some/config.json"), "some/config.json", "\"" + key + "\"",
                value.dump(), "not supported");
  };
  const ModelConfig llama = small_llama(), gpt2 = small_gpt2();
  refused(llama, "rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}});
  refused(llama, "rope_scaling", {{"type", "linear"}, {"factor", 2.0}});
  refused(llama, "rope_parameters", {{"rope_type", "yarn"}});
  refused(llama, "attention_bias", true);
  refused(llama, "mlp_bias", true);
  refused(llama, "tie_word_embeddings", true);
  refused(llama, "hidden_act", "gelu");
  refused(llama, "head_dim", 32);
  refused(llama, "partial_rotary_factor", 0.5);
  refused(llama, "sliding_window", 4096);
  refused(llama, "quantization_config", {{"bits", 4}});
  refused(gpt2, "activation_function", "relu");
  refused(gpt2, "tie_word_embeddings", false);
  refused(gpt2, "scale_attn_weights", false);
  refused(gpt2, "scale_attn_by_inverse_layer_idx", true);
  refused(gpt2, "add_cross_attention", true);
  refused(llama, "model_type", "mistral");
}

TEST_CASE("values that mean what llmz computes are accepted") {
  const ModelConfig llama = small_llama();
  check_same(from_hf_config(hf_with(llama, "head_dim", 16)), llama);
  check_same(from_hf_config(hf_with(llama, "rope_scaling", {{"rope_type", "default"}})), llama);
  check_same(from_hf_config(hf_with(llama, "use_cache", false)), llama);
  check_same(from_hf_config(hf_with(small_gpt2(), "activation_function", "gelu_pytorch_tanh")), small_gpt2());
}

TEST_CASE("a config.json that cannot be read is an error with its key") {
  const ModelConfig llama = small_llama();
  CHECK_ERROR(from_hf_config("{", "x.json"), "x.json", "not valid JSON");
  CHECK_ERROR(from_hf_config("[]", "x.json"), "x.json", "object");
  CHECK_ERROR(from_hf_config("{}", "x.json"), "x.json", "model_type", "llama");
  CHECK_ERROR(from_hf_config(hf_without(llama, "hidden_size"), "x.json"), "x.json", "\"hidden_size\" is missing");
  CHECK_ERROR(from_hf_config(hf_with(llama, "hidden_size", "96")), "\"hidden_size\" = \"96\"", "whole number");
  CHECK_ERROR(from_hf_config(hf_with(llama, "hidden_size", 96.5)), "\"hidden_size\" = 96.5", "whole number");
  CHECK_ERROR(from_hf_config(hf_with(llama, "num_hidden_layers", 0)), "\"num_hidden_layers\" = 0");
  CHECK_ERROR(from_hf_config(hf_with(llama, "vocab_size", 1e300)), "\"vocab_size\"");
  CHECK_ERROR(from_hf_config(hf_with(llama, "rms_norm_eps", "small")), "\"rms_norm_eps\" = \"small\"", "number");
  CHECK_ERROR(from_hf_config(hf_with(llama, "rope_theta", 1e99)), "\"rope_theta\"", "32-bit");
  CHECK_ERROR(from_hf_config(hf_with(llama, "num_key_value_heads", 4), "x.json"), "x.json", "model.kv_heads = 4");
  CHECK_ERROR(to_hf_config(changed([](auto& c) { c.heads = 5; })), "model.heads = 5");
}

TEST_CASE("floats are printed as short as they were written") {
  for (const float value :
       {0.1f, 1e-6f, 0.02f, 3e-3f, 10000.0f, 0.0f, -2.5f, 1e-8f, 3.4e38f, 1.17549435e-38f, 1e-45f}) {
    CHECK(static_cast<float>(decimal_double(value)) == value);
  }
  CHECK(decimal_double(0.1f) == 0.1);
  CHECK(decimal_double(1e-6f) == 1e-6);
}
