#include "llmz/subspace/streams.h"

#include "llmz/core/error.h"

namespace llmz::subspace {

/// Names of which the hashes meet are told apart by what is hashed behind the later one: "liquid#1".
uint32_t StreamTable::free_id(const std::string& name, size_t parts) const {
  uint32_t id = hash_of(name);
  const auto is_free = [&] {
    for (size_t i = 0; i < parts; ++i) {
      const auto other = taken_.find(id + static_cast<uint32_t>(i));
      if (other == taken_.end()) continue;
      check(other->second != name, "two tensors of the model are called '{}': each needs a name of its own", name);
      return false;
    }
    return true;
  };
  for (int again = 1; !is_free(); ++again) id = hash_of(fmt::format("{}#{}", name, again));
  return id;
}

StreamId StreamTable::add(const std::string& name, size_t parts) {
  const StreamId first{by_ == StreamsBy::name ? free_id(name, parts) : next_, next_};
  for (size_t i = 0; i < parts; ++i) taken_.emplace(first.part(i).id, name);
  next_ += static_cast<uint32_t>(parts);
  return first;
}

}  // namespace llmz::subspace
