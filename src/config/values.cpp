#include "src/config/values.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "llmz/config/schema.h"
#include "llmz/core/decimal.h"
#include "llmz/core/error.h"
#include "src/config/choice.h"

namespace llmz::config {
namespace {

/// Writes one JSON value into the member that its key stands for.
class Assign {
 public:
  Assign(const Field& field, const Text& text, const std::string& path, const Json& value)
      : field_(field), text_(text), path_(path), value_(value) {}

  void operator()(bool* slot) const {
    if (!value_.is_boolean()) wrong_type("true or false");
    *slot = value_.get<bool>();
  }

  void operator()(int64_t* slot) const { *slot = whole_number<int64_t>(); }
  void operator()(uint64_t* slot) const { *slot = whole_number<uint64_t>(); }

  void operator()(float* slot) const {
    if (!value_.is_number()) wrong_type("a number");
    const float number = static_cast<float>(value_.get<double>());
    if (!std::isfinite(number)) {
      fail("{}: \"{}\" = {} is too large for a 32-bit float", where(), path_, shown(value_));
    }
    check_range(number);
    *slot = number;
  }

  void operator()(std::string* slot) const { *slot = known_text(); }
  void operator()(std::optional<std::string>* slot) const {
    slot->reset();
    if (!value_.is_null()) *slot = known_text();
  }
  void operator()(const Named& slot) const { slot.set(known_text(), path_); }

  void operator()(std::vector<std::string>* slot) const {
    if (!value_.is_array()) wrong_type("a list of texts");
    std::vector<std::string> list;
    for (const Json& item : value_) {
      if (!item.is_string()) wrong_type("a list of texts");
      list.push_back(item.get<std::string>());
    }
    *slot = std::move(list);
  }

  void operator()(std::vector<Choice>* slot) const {
    if (!value_.is_array()) wrong_type("a list of objects");
    std::vector<Choice> list;
    for (size_t i = 0; i < value_.size(); ++i) {
      list.push_back(read_choice(*field_.list, text_, fmt::format("{}[{}]", path_, i), value_[i]));
    }
    *slot = std::move(list);
  }

 private:
  std::string where() const { return text_.where(path_); }

  [[noreturn]] void wrong_type(const char* expected) const {
    fail("{}: \"{}\" must be {}, not {} ({})", where(), path_, expected, shown(value_), value_.type_name());
  }

  /// One of the field's choices where it has any.
  std::string known_text() const {
    if (!value_.is_string()) wrong_type("a text");
    std::string text = value_.get<std::string>();
    const auto& choices = field_.allowed.choices;
    check(choices.empty() || std::find(choices.begin(), choices.end(), text) != choices.end(),
          "{}: \"{}\" = {} is not known; allowed: {}", where(), path_, shown(value_), fmt::join(choices, ", "));
    return text;
  }

  void check_range(double number) const {
    check(field_.allowed.range.contains(number), "{}: \"{}\" = {} is out of range; allowed: {}", where(), path_,
          shown(value_), field_.allowed.range.text());
  }

  /// 1e4 is a whole number too, as far as a double counts exactly.
  template <class T>
  T whole_number() const {
    if (!value_.is_number()) wrong_type("a whole number");
    const double number = value_.get<double>();
    if (value_.is_number_float() && (number != std::floor(number) || std::abs(number) > 0x1p53)) {
      wrong_type("a whole number");
    }
    check_range(number);
    const bool negative = number < 0;
    const bool fits =
        value_.is_number_unsigned() ? std::in_range<T>(value_.get<uint64_t>()) : !negative || std::is_signed_v<T>;
    check(fits, "{}: \"{}\" = {} is out of range; allowed: {} to {}", where(), path_, shown(value_),
          std::numeric_limits<T>::min(), std::numeric_limits<T>::max());
    return value_.get<T>();
  }

  const Field& field_;
  const Text& text_;
  const std::string& path_;
  const Json& value_;
};

struct ToJson {
  const Field& field;

  template <class T>
  Json operator()(const T* slot) const {
    return *slot;
  }
  Json operator()(const float* slot) const { return decimal_double(*slot); }
  Json operator()(const std::optional<std::string>* slot) const { return *slot ? Json(**slot) : Json(); }
  Json operator()(const Named& slot) const { return slot.get(); }
  Json operator()(const std::vector<Choice>* slot) const {
    Json list = Json::array();
    for (const Choice& choice : *slot) list.push_back(choice_to_json(*field.list, choice));
    return list;
  }
};

}  // namespace

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

std::string type_name(const Slot& slot) {
  struct Name {
    const char* operator()(bool*) const { return "true or false"; }
    const char* operator()(int64_t*) const { return "whole number"; }
    const char* operator()(uint64_t*) const { return "whole number"; }
    const char* operator()(float*) const { return "number"; }
    const char* operator()(std::string*) const { return "text"; }
    const char* operator()(std::optional<std::string>*) const { return "text"; }
    const char* operator()(const Named&) const { return "text"; }
    const char* operator()(std::vector<std::string>*) const { return "list of texts"; }
    const char* operator()(std::vector<Choice>*) const { return "list of objects"; }
  };
  return std::visit(Name{}, slot);
}

void assign(const Field& field, void* object, const Text& text, const std::string& path, const Json& value) {
  std::visit(Assign(field, text, path, value), field.slot(object));
}

Json value_of(const Field& field, void* object) { return std::visit(ToJson{field}, field.slot(object)); }

Json& member(Json& root, const std::string& path) {
  const size_t dot = path.find('.');
  Json& next = root[path.substr(0, dot)];
  return dot == std::string::npos ? next : member(next, path.substr(dot + 1));
}

}  // namespace llmz::config
