#include "src/data/json_text.h"

#include <nlohmann/json.hpp>

#include "llmz/core/error.h"

namespace llmz::data {
namespace {

constexpr size_t kShown = 120;  // characters of a foreign text in a message

/// Takes one string member out of an object and builds nothing else: documents can be long and have other members.
class FieldFinder final : public nlohmann::json::json_sax_t {
 public:
  explicit FieldFinder(std::string_view field) : field_(field) {}

  bool null() override { return scalar(); }
  bool boolean(bool) override { return scalar(); }
  bool number_integer(number_integer_t) override { return scalar(); }
  bool number_unsigned(number_unsigned_t) override { return scalar(); }
  bool number_float(number_float_t, const string_t&) override { return scalar(); }
  bool binary(binary_t&) override { return scalar(); }
  bool string(string_t& value) override {
    if (depth_ == 1 && here_) {
      found = true;
      text = std::move(value);
    }
    return scalar();
  }
  bool key(string_t& name) override {
    if (depth_ != 1) return true;
    here_ = name == field_;
    present = present || here_;
    if (names.size() < kShown) names += (names.empty() ? "" : ", ") + name;
    return true;
  }
  bool start_object(size_t) override { return open(true); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(false); }
  bool end_array() override { return close(); }
  bool parse_error(size_t byte, const std::string&, const nlohmann::json::exception& error) override {
    std::string_view what = error.what();
    const size_t detail = what.find(": ");  // after "[json.exception…] parse error at line 1, column n"
    if (detail != std::string_view::npos) what.remove_prefix(detail + 2);
    fail("malformed JSON at byte {}: {}", byte, what.substr(0, kShown));
  }

  std::string text;
  std::string names;  // of the object's members, for the message
  bool found = false, present = false, object = false;

 private:
  bool scalar() {
    if (depth_ == 1) here_ = false;
    return true;
  }
  bool open(bool is_object) {
    if (depth_ == 0) object = is_object;
    if (depth_ == 1) here_ = false;
    ++depth_;
    return true;
  }
  bool close() {
    --depth_;
    return true;
  }

  std::string_view field_;
  int depth_ = 0;
  bool here_ = false;  // the next value at depth 1 is the wanted one
};

}  // namespace

std::string json_text(std::string_view line, std::string_view field) {
  FieldFinder finder(field);
  nlohmann::json::sax_parse(line.begin(), line.end(), &finder);
  check(finder.object, "not a JSON object");
  check(finder.present, "no member \"{}\" (it has: {}); name the one that holds the text", field,
        finder.names.substr(0, kShown));
  check(finder.found, "the member \"{}\" is not a string", field);
  return std::move(finder.text);
}

}  // namespace llmz::data
