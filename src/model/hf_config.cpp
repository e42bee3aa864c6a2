#include "llmz/model/hf_config.h"

#include "llmz/core/error.h"
#include "src/model/architecture.h"

namespace llmz::model {
namespace {

Json id_or_null(int64_t id) { return id >= 0 ? Json(id) : Json(); }

}  // namespace

std::string to_hf_config(const ModelConfig& config, const HfOptions& options) {
  validate(config);
  Json json = find_architecture(config.architecture).to_hf(config);
  json["bos_token_id"] = id_or_null(options.bos_token_id);
  json["eos_token_id"] = id_or_null(options.eos_token_id);
  json["torch_dtype"] = options.torch_dtype;
  json["use_cache"] = true;
  return json.dump(2) + "\n";
}

ModelConfig from_hf_config(std::string_view json, const std::string& source) {
  const HfReader hf(json, source);
  const std::string type = hf.text("model_type", "");
  std::vector<std::string> known;
  for (const Architecture& row : registry()) {
    known.emplace_back(row.hf_type);
    if (type != row.hf_type) continue;
    hf.only("quantization_config", {}, "the weights must not be quantised");
    ModelConfig config = row.from_hf(hf);
    config.architecture = row.name;
    try {
      validate(config);
    } catch (const Error& error) {
      fail("{}: {}", source, error.what());
    }
    return config;
  }
  fail("{}: \"model_type\" = \"{}\" is not supported; supported: {}", source, type, fmt::join(known, ", "));
}

}  // namespace llmz::model
