#pragma once

#include <string>
#include <vector>

#include "llmz/config/fields.h"
#include "llmz/config/text.h"

namespace llmz::config {

/// One object of the top level, for the documentation.
struct Section {
  std::string name;
  std::string meaning;
};

/// Every key of a configuration struct, section by section, in the order of `sections`.
class Schema {
 public:
  /// `special`: keys that stand for no member, such as "model.base"; they are read before all others of their object.
  template <class T>
  Schema(const Fields<T>& fields, std::vector<Section> sections, std::vector<std::string> special = {})
      : fields_(fields.rows()), sections_(std::move(sections)), special_(std::move(special)) {}

  const std::vector<Field>& fields() const { return fields_; }
  const std::vector<Section>& sections() const { return sections_; }

  /// The row of `path`, or nullptr.
  const Field* find(const std::string& path) const;
  bool is_special(const std::string& path) const;
  /// Whether `path` is an object that holds keys: "train", "optimizer.lr_scale".
  bool is_object(const std::string& path) const;
  /// "unknown key "train.stpes"; did you mean "train.steps"?" for a path that is none of these.
  std::string unknown_key(const std::string& path) const;

 private:
  std::vector<Field> fields_;
  std::vector<Section> sections_;
  std::vector<std::string> special_;
};

/// "whole number", "text", …
std::string type_name(const Slot& slot);

/// Fills one struct from files and overrides: strictly, every error names source, line and key. A derived class says
/// what special keys do, and other spellings of known ones.
class Reader {
 public:
  /// `object`: the struct that the schema's fields describe.
  template <class T>
  Reader(const Schema& schema, T& object) : schema_(schema), object_(&object) {}
  virtual ~Reader() = default;
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  /// Takes over the object that is the whole of `text`.
  void apply_all(const Text& text) { apply_members(text, "", text.root); }
  /// "train.steps=10": texts may come without quotes, lists of texts as a,b,c.
  void apply_override(const std::string& argument);

 protected:
  /// Takes over `value`, which stands at `path` in `text`.
  void apply(const Text& text, const std::string& path, const Json& value);
  /// The same for each member of `object`, special ones first.
  void apply_members(const Text& text, const std::string& path, const Json& object);
  /// For a path that is no field: whether it was one of the derived class's own, which is done with then.
  virtual bool apply_special(const Text&, const std::string&, const Json&) { return false; }

 private:
  const Schema& schema_;
  void* object_;
};

/// Writes `value`, as a command line has it (texts without quotes, lists of texts as a,b,c), into the member of
/// `object` that `field` stands for. `source`: what errors call it.
void set_from_text(const Field& field, void* object, const std::string& value, const std::string& source);

/// The member's value; null for a text that is absent.
Json value_of(const Field& field, void* object);

/// A value as an error shows it: JSON, cut where it is long.
std::string shown(const Json& value);

/// Every key with its value, in the order of the schema; reading it back gives the same struct. Floats in as few digits
/// as give them back. `object`, of which a field may make parts at their defaults: the struct of the schema, a copy.
Json value_to_json(const Schema& schema, void* object);
/// Only the keys whose values differ from those of `defaults`, a struct of the same type.
Json changes_to_json(const Schema& schema, void* object, void* defaults);

/// The tables of docs/config.md, one a section.
std::string tables_markdown(const Schema& schema, void* defaults);

}  // namespace llmz::config
