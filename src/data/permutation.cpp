#include "llmz/data/permutation.h"

#include <cmath>

#include "llmz/core/error.h"
#include "llmz/core/random.h"

namespace llmz::data {
namespace {

constexpr uint64_t kRounds = 8;  // four of each half; Luby and Rackoff prove three to four enough for good rounds

}  // namespace

Permutation::Permutation(int64_t size, uint64_t seed) : size_(static_cast<uint64_t>(size)), seed_(seed) {
  check(size >= 1 && size <= (int64_t{1} << 62), "a permutation needs 1 to 2^62 elements, got {}", size);
  left_ = static_cast<uint64_t>(std::ceil(std::sqrt(static_cast<double>(size_))));
  right_ = (size_ + left_ - 1) / left_;
}

int64_t Permutation::at(int64_t epoch, int64_t position) const {
  check(position >= 0 && position < size(), "position {} of a permutation of {}", position, size());
  const RandomStream draws(seed_, Purpose::data_order, static_cast<uint32_t>(epoch));
  auto x = static_cast<uint64_t>(position);
  do {
    uint64_t l = x / right_, r = x % right_;
    for (uint64_t round = 0; round < kRounds; round += 2) {
      // A draw is addressed by round and half; halves stay below 2^32.
      l = (l + draws.below((round << 32) | r, left_)) % left_;
      r = (r + draws.below(((round + 1) << 32) | l, right_)) % right_;
    }
    x = l * right_ + r;
  } while (x >= size_);
  return static_cast<int64_t>(x);
}

}  // namespace llmz::data
