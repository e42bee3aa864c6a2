#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmz::text {

/// Which two adjacent tokens become which one, and in which order: the byte-pair merges of a vocabulary. Open
/// addressing, at most half full; filled once, then shared by threads without locks.
class MergeTable {
 public:
  static constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
  struct Merge {
    uint32_t rank = kNone;  ///< lower ones first; kNone where the two do not merge
    int32_t result = 0;
  };

  /// For up to `pairs` calls of `add`, each for another pair.
  explicit MergeTable(size_t pairs);
  void add(int32_t left, int32_t right, Merge merge);
  Merge find(int32_t left, int32_t right) const {
    const uint64_t key = pair(left, right);
    for (size_t i = mix(key) & mask_;; i = (i + 1) & mask_) {
      if (slots_[i].merge.rank == kNone || slots_[i].key == key) return slots_[i].merge;
    }
  }

 private:
  struct Slot {
    uint64_t key = 0;
    Merge merge;
  };
  static uint64_t pair(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 32)) * 0x9e3779b97f4a7c15ull;
    return x ^ (x >> 29);
  }
  std::vector<Slot> slots_;
  size_t mask_;
};

/// Merges the adjacent pair of lowest rank, leftmost first, until none is left. Keeps its buffers from word to word;
/// one thread each.
class PairMerger {
 public:
  explicit PairMerger(const MergeTable& table) : table_(table) {}
  /// Appends to `out` what `symbols` are merged into. `symbols` is used up.
  void merge(std::span<int32_t> symbols, std::vector<int32_t>& out);

 private:
  /// Up to here looking through all pairs for each merge is quicker than keeping a heap.
  static constexpr size_t kShort = 48;
  static constexpr size_t kEnd = std::numeric_limits<size_t>::max();
  struct Symbol {
    int32_t id;
    MergeTable::Merge merge;  ///< with the next symbol
    size_t previous, next;
  };
  struct Candidate {
    uint32_t rank;
    size_t left;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
  };

  void merge_short(std::span<int32_t> ids, std::vector<int32_t>& out) const;
  void merge_long(std::span<const int32_t> ids, std::vector<int32_t>& out);
  void find_merge(size_t left);

  const MergeTable& table_;
  std::vector<Symbol> list_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap_;
};

/// Word -> token, for the words that are one token: most words of a text, so most need no merging. Filled once, then
/// shared by threads without locks.
class WordTable {
 public:
  /// `tokens`, by id, must outlive the table and stay as they are.
  explicit WordTable(const std::vector<std::string>& tokens);
  void add(int32_t id);
  /// -1 where the word is not one token.
  int32_t find(std::string_view word) const;

 private:
  struct Slot {
    uint32_t tag = 0;
    int32_t id = -1;
  };
  const std::vector<std::string>& tokens_;
  std::vector<Slot> slots_;
  size_t mask_;
};

}  // namespace llmz::text
