#include "src/data/gpt2_tokenizer.h"

#include <bit>
#include <cstring>
#include <limits>
#include <queue>

#include "llmz/core/error.h"
#include "src/data/tokenizer_files.h"

namespace llmz::data {
namespace {

uint64_t mix(uint64_t x) {  // the finaliser of SplitMix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// (left, right) -> rank of their merge, which is also its index. Open addressing, at most half full.
class MergeTable {
 public:
  static constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

  explicit MergeTable(const std::vector<Gpt2Vocabulary::Merge>& merges)
      : slots_(std::bit_ceil(2 * merges.size() + 2)), mask_(slots_.size() - 1) {
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      const uint64_t key = pair(merges[rank].left, merges[rank].right);
      size_t i = mix(key) & mask_;
      while (slots_[i].rank != kNone) i = (i + 1) & mask_;
      slots_[i] = {key, static_cast<uint32_t>(rank)};
    }
  }

  uint32_t rank(int32_t left, int32_t right) const {
    const uint64_t key = pair(left, right);
    for (size_t i = mix(key) & mask_;; i = (i + 1) & mask_) {
      if (slots_[i].rank == kNone || slots_[i].key == key) return slots_[i].rank;
    }
  }

 private:
  struct Slot {
    uint64_t key = 0;
    uint32_t rank = kNone;
  };
  static uint64_t pair(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }
  std::vector<Slot> slots_;
  size_t mask_;
};

/// Word -> token, for words that are one token. Filled once, so threads share it without locks.
class WordTable {
 public:
  explicit WordTable(const std::vector<std::string>& tokens)
      : tokens_(tokens), slots_(std::bit_ceil(2 * tokens.size() + 2)), mask_(slots_.size() - 1) {}

  void add(int32_t id) {
    const uint64_t h = hash(tokens_[id]);
    size_t i = h & mask_;
    while (slots_[i].id >= 0) i = (i + 1) & mask_;
    slots_[i] = {static_cast<uint32_t>(h >> 32), id};
  }

  /// -1 where the word is not one token.
  int32_t find(std::string_view word) const {
    const uint64_t h = hash(word);
    for (size_t i = h & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.id < 0) return -1;
      if (slot.tag == static_cast<uint32_t>(h >> 32) && tokens_[slot.id] == word) return slot.id;
    }
  }

 private:
  struct Slot {
    uint32_t tag = 0;
    int32_t id = -1;
  };
  static uint64_t hash(std::string_view word) {
    uint64_t h = word.size();
    for (; word.size() >= 8; word.remove_prefix(8)) {
      uint64_t eight;
      std::memcpy(&eight, word.data(), 8);
      h = mix(h ^ eight);
    }
    uint64_t rest = 0;
    for (const char c : word) rest = rest << 8 | static_cast<unsigned char>(c);
    return mix(h ^ mix(rest));
  }
  const std::vector<std::string>& tokens_;
  std::vector<Slot> slots_;
  size_t mask_;
};

/// Merges the adjacent pair of lowest rank, leftmost first, until none is left. Keeps its buffers from word to word.
class PairMerger {
 public:
  PairMerger(const Gpt2Vocabulary& vocabulary, const MergeTable& table) : vocabulary_(vocabulary), table_(table) {}

  void encode(std::string_view word, std::vector<int32_t>& out) {
    if (word.size() > kShort) return encode_long(word, out);
    encode_short(word, out);
  }

 private:
  /// Up to here looking through all pairs for each merge is quicker than keeping a heap.
  static constexpr size_t kShort = 48;

  void encode_short(std::string_view word, std::vector<int32_t>& out) const {
    std::array<int32_t, kShort> ids;
    std::array<uint32_t, kShort> ranks;  // of the pair (i, i + 1)
    size_t count = word.size();
    for (size_t i = 0; i < count; ++i) ids[i] = vocabulary_.byte_ids[static_cast<unsigned char>(word[i])];
    for (size_t i = 0; i + 1 < count; ++i) ranks[i] = table_.rank(ids[i], ids[i + 1]);
    while (count > 1) {
      size_t best = 0;
      for (size_t i = 1; i + 1 < count; ++i) best = ranks[i] < ranks[best] ? i : best;
      if (ranks[best] == MergeTable::kNone) break;
      ids[best] = vocabulary_.merges[ranks[best]].result;
      --count;
      for (size_t i = best + 1; i < count; ++i) ids[i] = ids[i + 1];
      for (size_t i = best; i + 1 < count; ++i) ranks[i] = ranks[i + 1];
      if (best > 0) ranks[best - 1] = table_.rank(ids[best - 1], ids[best]);
      if (best + 1 < count) ranks[best] = table_.rank(ids[best], ids[best + 1]);
    }
    out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count));
  }

  /// A list of symbols with a heap of their pairs: n log n for n bytes.
  struct Symbol {
    int32_t id;
    uint32_t rank;  ///< of the pair with the next symbol
    size_t previous, next;
  };
  struct Candidate {
    uint32_t rank;
    size_t left;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
  };
  static constexpr size_t kEnd = std::numeric_limits<size_t>::max();

  void rank_pair(size_t left) {
    Symbol& symbol = symbols_[left];
    symbol.rank = symbol.next == kEnd ? MergeTable::kNone : table_.rank(symbol.id, symbols_[symbol.next].id);
    if (symbol.rank != MergeTable::kNone) heap_.push({symbol.rank, left});
  }

  void encode_long(std::string_view word, std::vector<int32_t>& out) {
    const size_t count = word.size();
    symbols_.resize(count);
    for (size_t i = 0; i < count; ++i) {
      symbols_[i] = {vocabulary_.byte_ids[static_cast<unsigned char>(word[i])], MergeTable::kNone,
                     i == 0 ? kEnd : i - 1, i + 1 == count ? kEnd : i + 1};
    }
    for (size_t i = 0; i < count; ++i) rank_pair(i);
    while (!heap_.empty()) {
      const auto [rank, left] = heap_.top();
      heap_.pop();
      Symbol& symbol = symbols_[left];
      if (symbol.rank != rank) continue;  // the pair is gone, or another one now
      Symbol& gone = symbols_[symbol.next];
      symbol.id = vocabulary_.merges[rank].result;
      symbol.next = gone.next;
      gone.rank = MergeTable::kNone;
      if (symbol.next != kEnd) symbols_[symbol.next].previous = left;
      rank_pair(left);
      if (symbol.previous != kEnd) rank_pair(symbol.previous);
    }
    for (size_t i = 0; i != kEnd; i = symbols_[i].next) out.push_back(symbols_[i].id);
  }

  const Gpt2Vocabulary& vocabulary_;
  const MergeTable& table_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap_;
};

uint64_t vocabulary_hash(const Gpt2Vocabulary& vocabulary) {
  Hasher hasher;
  hasher.add("gpt2");
  for (const auto& token : vocabulary.spelling) hasher.add(token);
  for (const auto& merge : vocabulary.merges) {
    hasher.add(vocabulary.spelling[merge.left]);
    hasher.add(vocabulary.spelling[merge.right]);
  }
  return hasher.value();
}

class Gpt2Tokenizer final : public Tokenizer {
 public:
  explicit Gpt2Tokenizer(Gpt2Vocabulary vocabulary)
      : Tokenizer(vocabulary_hash(vocabulary)),
        vocabulary_(std::move(vocabulary)),
        merges_(vocabulary_.merges),
        words_(vocabulary_.bytes) {
    // Not every token is what its own text is merged into; those that are need no merging at all.
    PairMerger merger(vocabulary_, merges_);
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < static_cast<int32_t>(vocabulary_.bytes.size()); ++id) {
      ids.clear();
      merger.encode(vocabulary_.bytes[id], ids);
      if (ids.size() == 1 && ids[0] == id) words_.add(id);
    }
  }

  std::string kind() const override { return "gpt2"; }
  int64_t vocab_size() const override { return static_cast<int64_t>(vocabulary_.bytes.size()); }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::optional<int32_t> eos() const override { return vocabulary_.end_of_text; }

  void encode(std::string_view text, std::vector<int32_t>& out) const override {
    Gpt2Splitter::Words words(splitter_, text);
    PairMerger merger(vocabulary_, merges_);
    for (std::string_view word; words.next(word);) {
      const int32_t id = words_.find(word);
      if (id >= 0) {
        out.push_back(id);
      } else {
        merger.encode(word, out);
      }
    }
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) {
      check_id(id);
      text += vocabulary_.bytes[id];
    }
    return text;
  }

  std::string token_text(int32_t id) const override {
    check_id(id);
    return printable(vocabulary_.spelling[id]);
  }

  void save(const std::filesystem::path& folder) const override {
    make_tokenizer_folder(folder);
    write_gpt2_vocabulary(vocabulary_, folder);
    write_manifest(folder, *this);
  }

 private:
  void check_id(int32_t id) const {
    check(id >= 0 && id < vocab_size(), "token id {} is outside the vocabulary of {}", id, vocab_size());
  }

  Gpt2Vocabulary vocabulary_;
  MergeTable merges_;
  WordTable words_;
  Gpt2Splitter splitter_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_gpt2_tokenizer(const std::filesystem::path& vocab,
                                               const std::filesystem::path& merges) {
  return std::make_unique<Gpt2Tokenizer>(read_gpt2_vocabulary(vocab, merges));
}

}  // namespace llmz::data
