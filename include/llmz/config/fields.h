#pragma once

#include <algorithm>
#include <any>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "llmz/core/error.h"

/// Settings that describe themselves. A component's layer says, next to the struct of its settings, which keys it has
/// (Fields); `run` puts all of them together into the configuration of a run (Schema, in schema.h), from which
/// parsing, printing, overrides, errors and docs/config.md are made. This layer knows no component.
namespace llmz::config {

/// Numbers that a key accepts.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool above_low = false;   ///< `low` itself is not accepted
  bool below_high = false;  ///< `high` itself is not accepted

  bool contains(double x) const;
  /// "1 to 64", "at least 0", "above 0 and below 1"; empty when anything goes.
  std::string text() const;
};

/// What a key accepts beside its type: numbers of a range, or texts of a list; anything by default.
struct Allowed {
  Range range = {};
  std::vector<std::string> choices = {};
};
Allowed at_least(double low);
Allowed above(double low);
Allowed between(double low, double high);
Allowed from_below(double low, double high);  ///< `high` itself is not accepted
Allowed one_of(std::vector<std::string> choices);

/// The one table of a text that stands for an enumerator: its choices in a schema, errors, and the conversion.
template <class E>
class Names {
 public:
  struct Row {
    const char* name;
    E value;
  };
  Names(std::initializer_list<Row> rows) : rows_(rows) {}

  std::vector<std::string> list() const {
    std::vector<std::string> names;
    for (const Row& row : rows_) names.emplace_back(row.name);
    return names;
  }
  /// The enumerators, in the order of the table.
  std::vector<E> values() const {
    std::vector<E> all;
    for (const Row& row : rows_) all.push_back(row.value);
    return all;
  }
  std::string name(E value) const {
    for (const Row& row : rows_) {
      if (row.value == value) return row.name;
    }
    fail("an enumerator of number {} has no name; known: {}", static_cast<int>(value), fmt::join(list(), ", "));
  }
  std::optional<E> find(const std::string& name) const {
    for (const Row& row : rows_) {
      if (name == row.name) return row.value;
    }
    return std::nullopt;
  }
  /// Error that names `key` and what is allowed, for a text that stands for nothing.
  E value(const std::string& name, const std::string& key) const {
    if (const std::optional<E> found = find(name)) return *found;
    fail("{} = \"{}\" is not known; allowed: {}", key, name, fmt::join(list(), ", "));
  }

 private:
  std::vector<Row> rows_;
};

/// Settings structs of any types, at most one of each; those never asked for stand at their defaults. For settings of
/// components that the struct which holds them does not know.
class Bag {
 public:
  template <class T>
  const T& get() const {
    static const T kDefault;
    for (const std::any& item : items_) {
      if (const T* found = std::any_cast<T>(&item)) return *found;
    }
    return kDefault;
  }
  template <class T>
  T& get() {
    for (std::any& item : items_) {
      if (T* found = std::any_cast<T>(&item)) return *found;
    }
    return items_.emplace_back().emplace<T>();
  }

 private:
  std::vector<std::any> items_;
};

/// A component chosen by name, one element of a list: {"use": "muon", "where": "blocks.matrix", "momentum": 0.9}.
struct Choice {
  std::string name;
  Bag settings;                         ///< its own, and those that all elements of the list have
  std::vector<std::string> given = {};  ///< the keys that stand in the element
};

/// A member of an enumeration, read and written by the names of its values.
class Named {
 public:
  /// Both outlive it.
  template <class E>
  Named(E& member, const Names<E>& names)
      : member_(&member),
        size_(sizeof(member)),
        get_([&member, &names] { return names.name(member); }),
        set_([&member, &names](const std::string& name, const std::string& key) { member = names.value(name, key); }) {}

  const void* member() const { return member_; }
  size_t size() const { return size_; }
  std::string get() const { return get_(); }
  /// Error that names `key` and what is allowed, for a name that stands for nothing.
  void set(const std::string& name, const std::string& key) const { set_(name, key); }

 private:
  const void* member_;
  size_t size_;
  std::function<std::string()> get_;
  std::function<void(const std::string&, const std::string&)> set_;
};

/// The member that a key stands for.
using Slot = std::variant<bool*, int64_t*, uint64_t*, float*, std::string*, std::optional<std::string>*,
                          std::vector<std::string>*, std::vector<Choice>*, Named>;

struct ListType;

/// One key. Its default is the member's own.
struct Field {
  std::string path;  ///< within its object: "alpha", "subspace.alpha"
  std::function<Slot(void*)> slot;
  std::string meaning;
  Allowed allowed = {};
  /// Where several objects hold the same key: how the documentation writes them all, "<role>.rank"; else empty.
  std::string family = {};
  std::shared_ptr<const ListType> list = nullptr;  ///< of a list of choices: what its elements may be

  /// The same key of an object that holds this one under `prefix` (empty: its keys stand beside each other) and finds
  /// it by `inner`. `named`: what the documentation writes for the prefix, where that is a family.
  Field within(const std::string& prefix, const std::string& named, std::function<void*(void*)> inner) const;
};

/// The keys of the struct T, in the order of the documentation. `find` is a pointer to a member of T, or a function
/// that gives a member of T&.
template <class T>
class Fields {
 public:
  template <class Find>
  Fields& key(std::string path, Find find, std::string meaning, Allowed allowed = {}) {
    const auto slot = [find](void* object) -> Slot { return &std::invoke(find, *static_cast<T*>(object)); };
    rows_.push_back({std::move(path), slot, std::move(meaning), std::move(allowed)});
    return *this;
  }

  /// A member of an enumeration. `names` is there for good.
  template <class Find, class E>
  Fields& key(std::string path, Find find, std::string meaning, const Names<E>& names) {
    const auto slot = [find, &names](void* object) -> Slot {
      return Named(std::invoke(find, *static_cast<T*>(object)), names);
    };
    rows_.push_back({std::move(path), slot, std::move(meaning), one_of(names.list())});
    return *this;
  }

  /// A list of components, each with the keys of its own kind: std::vector<Choice>.
  template <class Find>
  Fields& list(std::string path, Find find, std::string meaning, const ListType& elements);

  /// An object under the key `prefix`; with an empty one its keys stand among this struct's own. `family`: what the
  /// documentation writes for the prefix where several objects have the same keys.
  template <class Find, class M = std::remove_cvref_t<std::invoke_result_t<Find, T&>>>
  Fields& object(const std::string& prefix, Find find, const Fields<M>& fields, const std::string& family = "") {
    const auto inner = [find](void* object) -> void* { return &std::invoke(find, *static_cast<T*>(object)); };
    for (const Field& field : fields.rows()) rows_.push_back(field.within(prefix, family, inner));
    return *this;
  }

  /// Those of another component of the same struct; keys that both have stand for one member, and are taken once.
  /// Throws Error where two components mean different things by a key.
  Fields& merge(const Fields& other) {
    for (const Field& field : other.rows_) {
      const auto same = [&](const Field& mine) { return mine.path == field.path; };
      const auto mine = std::find_if(rows_.begin(), rows_.end(), same);
      check(mine == rows_.end() || mine->meaning == field.meaning,
            "two components mean different things by \"{}\": \"{}\" and \"{}\"; rename one of the keys", field.path,
            mine == rows_.end() ? "" : mine->meaning, field.meaning);
      if (mine == rows_.end()) rows_.push_back(field);
    }
    return *this;
  }

  const std::vector<Field>& rows() const { return rows_; }

 private:
  std::vector<Field> rows_;
};

/// The keys of M as found in a Bag.
template <class M>
Fields<Bag> in_bag(const Fields<M>& fields) {
  return Fields<Bag>().object(
      "", [](Bag& bag) -> M& { return bag.get<M>(); }, fields);
}

/// What a registry row says of a component that a list may hold; the registry's own layer adds a maker.
struct Component {
  std::string name;
  std::string meaning;
  Fields<Bag> fields;  ///< of its own settings
};

/// What the elements of a list are: objects whose key `selector` names a component.
struct ListType {
  std::string selector;            ///< "use"
  std::string meaning;             ///< of the selector
  Fields<Bag> common;              ///< keys of every element, whichever component it names
  std::vector<Component> choices;  ///< in the order of the documentation
};

/// The settings among `fields` that the element does not give become those of `from`.
void take_rest(Choice& choice, const Fields<Bag>& fields, Bag from);

template <class T>
template <class Find>
Fields<T>& Fields<T>::list(std::string path, Find find, std::string meaning, const ListType& elements) {
  key(std::move(path), find, std::move(meaning));
  rows_.back().list = std::make_shared<const ListType>(elements);
  return *this;
}

}  // namespace llmz::config
