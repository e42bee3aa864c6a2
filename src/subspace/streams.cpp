#include "llmz/subspace/streams.h"

#include "llmz/core/error.h"

namespace llmz::subspace {

StreamId StreamTable::add(const std::string& name, size_t parts) {
  const StreamId first{by_ == StreamsBy::name ? hash_of(name) : next_, next_};
  for (size_t i = 0; i < parts; ++i) {
    const auto [other, is_new] = taken_.emplace(first.part(i).id, name);
    check(is_new, "'{}' would draw the random numbers of '{}': their names have the same hash; rename one of the two",
          name, other->second);
  }
  next_ += static_cast<uint32_t>(parts);
  return first;
}

}  // namespace llmz::subspace
