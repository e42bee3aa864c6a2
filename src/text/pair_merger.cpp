#include "src/text/pair_merger.h"

#include <array>
#include <bit>
#include <cstring>

namespace llmz::text {

MergeTable::MergeTable(size_t pairs) : slots_(std::bit_ceil(2 * pairs + 2)), mask_(slots_.size() - 1) {}

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = pair(left, right);
  size_t i = mix(key) & mask_;
  while (slots_[i].merge.rank != kNone) i = (i + 1) & mask_;
  slots_[i] = {key, merge};
}

void PairMerger::merge(std::span<int32_t> symbols, std::vector<int32_t>& out) {
  if (symbols.size() > kShort) {
    merge_long(symbols, out);
  } else {
    merge_short(symbols, out);
  }
}

void PairMerger::merge_short(std::span<int32_t> ids, std::vector<int32_t>& out) const {
  std::array<MergeTable::Merge, kShort> merges;  // of the pair (i, i + 1)
  size_t count = ids.size();
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = table_.find(ids[i], ids[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) best = merges[i].rank < merges[best].rank ? i : best;
    if (merges[best].rank == MergeTable::kNone) break;
    ids[best] = merges[best].result;
    --count;
    for (size_t i = best + 1; i < count; ++i) ids[i] = ids[i + 1];
    for (size_t i = best; i + 1 < count; ++i) merges[i] = merges[i + 1];
    if (best > 0) merges[best - 1] = table_.find(ids[best - 1], ids[best]);
    if (best + 1 < count) merges[best] = table_.find(ids[best], ids[best + 1]);
  }
  for (size_t i = 0; i < count; ++i) out.push_back(ids[i]);
}

void PairMerger::find_merge(size_t left) {
  Symbol& symbol = list_[left];
  symbol.merge = symbol.next == kEnd ? MergeTable::Merge() : table_.find(symbol.id, list_[symbol.next].id);
  if (symbol.merge.rank != MergeTable::kNone) heap_.push({symbol.merge.rank, left});
}

/// A linked list of symbols with a heap of their pairs: n log n for n symbols.
void PairMerger::merge_long(std::span<const int32_t> ids, std::vector<int32_t>& out) {
  const size_t count = ids.size();
  list_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    list_[i] = {ids[i], {}, i == 0 ? kEnd : i - 1, i + 1 == count ? kEnd : i + 1};
  }
  for (size_t i = 0; i < count; ++i) find_merge(i);
  while (!heap_.empty()) {
    const auto [rank, left] = heap_.top();
    heap_.pop();
    Symbol& symbol = list_[left];
    if (symbol.merge.rank != rank) continue;  // the pair is gone, or another one now
    Symbol& gone = list_[symbol.next];
    symbol.id = symbol.merge.result;
    symbol.next = gone.next;
    gone.merge = {};
    if (symbol.next != kEnd) list_[symbol.next].previous = left;
    find_merge(left);
    if (symbol.previous != kEnd) find_merge(symbol.previous);
  }
  for (size_t i = 0; i != kEnd; i = list_[i].next) out.push_back(list_[i].id);
}

namespace {

uint64_t word_hash(std::string_view word) {
  const auto mix = [](uint64_t x) {  // the finaliser of SplitMix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
  };
  uint64_t h = word.size();
  for (; word.size() >= 8; word.remove_prefix(8)) {
    uint64_t eight;
    std::memcpy(&eight, word.data(), 8);
    h = mix(h ^ eight);
  }
  uint64_t rest = 0;
  for (const char c : word) rest = rest << 8 | static_cast<unsigned char>(c);
  return mix(mix(h) ^ rest);
}

}  // namespace

WordTable::WordTable(const std::vector<std::string>& tokens)
    : tokens_(tokens), slots_(std::bit_ceil(2 * tokens.size() + 2)), mask_(slots_.size() - 1) {}

void WordTable::add(int32_t id) {
  const uint64_t h = word_hash(tokens_[id]);
  size_t i = h & mask_;
  while (slots_[i].id >= 0) i = (i + 1) & mask_;
  slots_[i] = {static_cast<uint32_t>(h >> 32), id};
}

int32_t WordTable::find(std::string_view word) const {
  const uint64_t h = word_hash(word);
  for (size_t i = h & mask_;; i = (i + 1) & mask_) {
    const Slot& slot = slots_[i];
    if (slot.id < 0) return -1;
    if (slot.tag == static_cast<uint32_t>(h >> 32) && tokens_[slot.id] == word) return slot.id;
  }
}

}  // namespace llmz::text
