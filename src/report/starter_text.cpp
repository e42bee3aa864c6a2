// How a starter's choices become a file that people read.
#include <map>

#include "llmz/core/error.h"
#include "llmz/report/starter.h"

namespace llmz::report {
namespace {

using Json = nlohmann::ordered_json;
constexpr size_t kWidth = 110;

/// "// " lines of whole words.
std::string comment(const std::string& text, const std::string& indent) {
  std::string lines, line;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!line.empty() && indent.size() + line.size() + 1 + word.size() > kWidth) {
      lines += line + "\n";
      line.clear();
    }
    line += line.empty() ? indent + "// " + word : " " + word;
    at = end + 1;
  }
  return lines + line + "\n";
}

class Printer {
 public:
  explicit Printer(const std::vector<ChosenKey>& choices) {
    for (const ChosenKey& choice : choices) {
      why_[choice.key] = choice.why;
      Json* place = &root_;
      for (size_t at = 0; at < choice.key.size();) {
        const size_t end = std::min(choice.key.find('.', at), choice.key.size());
        place = &(*place)[choice.key.substr(at, end - at)];
        at = end + 1;
      }
      *place = choice.value;
    }
  }

  std::string print(const std::string& intro) const {
    return "{\n" + comment(intro, "  ") + members(root_, "", "  ") + "}\n";
  }

 private:
  std::string members(const Json& object, const std::string& prefix, const std::string& indent) const {
    std::string text;
    size_t left = object.size();
    for (const auto& [name, value] : object.items()) {
      const std::string key = prefix + name;
      if (const auto why = why_.find(key); why != why_.end()) text += comment(why->second, indent);
      text += indent + Json(name).dump() + ": ";
      text += value.is_object() ? "{\n" + members(value, key + ".", indent + "  ") + indent + "}" : value.dump();
      text += --left > 0 ? ",\n" : "\n";
    }
    return text;
  }

  Json root_ = Json::object();
  std::map<std::string, std::string> why_;
};

}  // namespace

std::string commented_json(const std::string& intro, const std::vector<ChosenKey>& choices) {
  return Printer(choices).print(intro);
}

}  // namespace llmz::report
