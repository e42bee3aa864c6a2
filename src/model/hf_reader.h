#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace llmz::model {

using Json = nlohmann::ordered_json;

/// Reads one config.json of Hugging Face's; every error names the file and the key. Absent and null are the same there.
class HfReader {
 public:
  HfReader(std::string_view text, const std::string& source);

  bool has(const char* key) const { return root_.contains(key) && !root_[key].is_null(); }
  /// A whole number of at least 1.
  int64_t count(const char* key) const;
  int64_t count(const char* key, int64_t otherwise) const { return has(key) ? count(key) : otherwise; }
  float number(const char* key, float otherwise) const { return has(key) ? to_number(key, root_[key]) : otherwise; }
  std::string text(const char* key, const std::string& otherwise) const;
  /// Base of the rotary embedding, from `rope_theta` or transformers 5's `rope_parameters`.
  float rope_base() const;
  /// Throws unless `key` is absent or one of the values that mean what llmz computes.
  void only(const char* key, std::initializer_list<Json> accepted, const char* why) const;

 private:
  float to_number(const char* key, const Json& value) const;

  std::string source_;
  Json root_;
};

}  // namespace llmz::model
