#include "src/model/hf_reader.h"

#include <cmath>
#include <limits>

#include "llmz/core/error.h"

namespace llmz::model {

HfReader::HfReader(std::string_view text, const std::string& source) : source_(source) {
  try {
    root_ = Json::parse(text);
  } catch (const Json::exception& error) {
    fail("{}: not valid JSON: {}", source_, error.what());
  }
  check(root_.is_object(), "{}: must be a JSON object", source_);
}

int64_t HfReader::count(const char* key) const {
  check(has(key), "{}: key \"{}\" is missing", source_, key);
  const Json& value = root_[key];
  check(value.is_number_integer() && value >= 1 && value <= std::numeric_limits<int32_t>::max(),
        "{}: \"{}\" = {} must be a whole number from 1 to {}", source_, key, value.dump(),
        std::numeric_limits<int32_t>::max());
  return value.get<int64_t>();
}

std::string HfReader::text(const char* key, const std::string& otherwise) const {
  if (!has(key)) return otherwise;
  check(root_[key].is_string(), "{}: \"{}\" = {} must be a text", source_, key, root_[key].dump());
  return root_[key].get<std::string>();
}

void HfReader::only(const char* key, std::initializer_list<Json> accepted, const char* why) const {
  if (!has(key)) return;
  for (const Json& value : accepted) {
    if (root_[key] == value) return;
  }
  fail("{}: \"{}\" = {} is not supported: {}", source_, key, root_[key].dump(), why);
}

float HfReader::rope_base() const {
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

float HfReader::to_number(const char* key, const Json& value) const {
  check(value.is_number(), "{}: \"{}\" = {} must be a number", source_, key, value.dump());
  const float result = static_cast<float>(value.get<double>());
  check(std::isfinite(result), "{}: \"{}\" = {} does not fit a 32-bit float", source_, key, value.dump());
  return result;
}

}  // namespace llmz::model
