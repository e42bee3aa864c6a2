#include "llmz/config/text.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "llmz/core/error.h"

namespace llmz::config {
namespace {

/// Walks over the text and counts lines as the parser reads; copies share the count.
class LineCounter {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  LineCounter(const char* at, int64_t* line) : at_(at), line_(line) {}
  reference operator*() const { return *at_; }
  LineCounter& operator++() {
    if (*at_ == '\n') ++*line_;
    ++at_;
    return *this;
  }
  LineCounter operator++(int) {
    const LineCounter before = *this;
    ++*this;
    return before;
  }
  bool operator==(const LineCounter& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  int64_t* line_;
};

/// Receives nlohmann's parsing events: builds the tree, notes lines, refuses keys that stand twice.
class TreeBuilder : public nlohmann::json_sax<Json> {
 public:
  TreeBuilder(std::string_view text, const int64_t& line, const std::string& prefix, Text& result)
      : text_(text), line_(line), prefix_(prefix), result_(result) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t& value) override { return put(std::move(value)); }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    path_ = join_path(open_.back().path, name);
    check(!open_.back().value->contains(name), "{}:{}: key \"{}\" stands twice (first on line {})", result_.source,
          line_, path_, result_.lines[path_]);
    result_.lines[path_] = line_;
    name_ = name;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // `position` counts the bytes read, the offending one included.
    const std::string_view before = text_.substr(0, std::min(text_.size(), position > 0 ? position - 1 : 0));
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const std::string_view row = before.substr(before.rfind('\n') + 1);
    const auto column = 1 + std::count_if(row.begin(), row.end(), [](char c) { return (c & 0xC0) != 0x80; });
    const std::string after = path_.empty() ? "" : fmt::format(" (at or after key \"{}\")", path_);
    fail("{}:{}:{}: not valid JSON: {}{}", result_.source, line, column, plain(error.what()), after);
  }

 private:
  struct Open {
    Json* value;
    std::string path;
  };

  Json& place(Json&& value) {
    if (open_.empty()) return result_.root = std::move(value);
    Json& parent = *open_.back().value;
    if (parent.is_object()) return parent[name_] = std::move(value);
    parent.push_back(std::move(value));
    return parent.back();
  }

  bool put(Json&& value) {
    place(std::move(value));
    return true;
  }

  bool open(Json&& container) {
    std::string path = open_.empty() ? prefix_ : path_;
    if (!open_.empty() && open_.back().value->is_array()) {
      path = fmt::format("{}[{}]", open_.back().path, open_.back().value->size());
      result_.lines[path] = line_;
    }
    // Only the innermost container grows, so the addresses of the outer ones hold.
    Json& value = place(std::move(container));
    open_.push_back({&value, std::move(path)});
    return true;
  }

  bool close() {
    path_ = open_.back().path;
    open_.pop_back();
    return true;
  }

  /// nlohmann's message without its number and its own count of lines.
  static std::string plain(std::string message) {
    for (const char* lead : {"] ", ": "}) {
      const size_t at = message.find(lead);
      const bool counts_lines = message.starts_with("parse error");
      if (at != std::string::npos && (lead[0] == ']' || counts_lines)) message.erase(0, at + 2);
    }
    return message;
  }

  std::string_view text_;
  const int64_t& line_;
  std::string prefix_;
  Text& result_;
  std::vector<Open> open_;
  std::string name_;  // of the member to come
  std::string path_;  // of the latest key
};

}  // namespace

std::string join_path(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

std::string Text::where(const std::string& path) const {
  const auto line = lines.find(path);
  return line == lines.end() ? source : fmt::format("{}:{}", source, line->second);
}

Text parse_text(std::string_view text, const std::string& source, const std::string& prefix) {
  Text result;
  result.source = source;
  int64_t line = 1;
  TreeBuilder builder(text, line, prefix, result);
  const bool strict = true, ignore_comments = true;
  const LineCounter begin(text.data(), &line), end(text.data() + text.size(), &line);
  Json::sax_parse(begin, end, &builder, nlohmann::detail::input_format_t::json, strict, ignore_comments);
  return result;
}

Text read_text(const std::string& path, const std::string& prefix) {
  check(std::filesystem::exists(path), "{}: no such file", path);
  check(!std::filesystem::is_directory(path), "{}: is a folder; name the JSON file itself", path);
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  check(file.good() || file.eof(), "{}: cannot be read", path);
  return parse_text(text, path, prefix);
}

}  // namespace llmz::config
