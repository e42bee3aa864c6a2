#include <algorithm>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "src/text/sentencepiece_model.h"
#include "src/text/utf8.h"

namespace llmz::text {
namespace {

using PieceType = SentencePieceModel::PieceType;

constexpr std::string_view kSpace = "\xe2\x96\x81";        // U+2581, what SentencePiece writes for a space
constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD, what it reads for a byte that is not UTF-8

bool one_character(std::string_view text) { return !text.empty() && utf8_character_bytes(text, 0) == text.size(); }

/// No space after another character: a word ends where a space begins.
bool spaces_lead(std::string_view piece) {
  while (piece.starts_with(kSpace)) piece.remove_prefix(kSpace.size());
  return piece.find(kSpace) == std::string_view::npos;
}

/// -1 unless `text` is <0x00> ... <0xFF>.
int byte_of(const std::string& text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text.back() != '>') return -1;
  const std::string digits = text.substr(3, 2);
  if (digits.find_first_not_of("0123456789ABCDEF") != std::string::npos) return -1;
  return std::stoi(digits, nullptr, 16);
}

/// The conditions under which words may be merged one by one, from characters that are pieces themselves.
bool suits(const SentencePieceModel& model) {
  if (!model.bpe || !model.byte_fallback || model.space_as_suffix || model.has_character_map ||
      model.remove_extra_spaces || !model.escape_spaces) {
    return false;
  }
  std::unordered_set<std::string_view> pieces;
  std::array<bool, 256> bytes{};
  for (const auto& piece : model.pieces) {
    if (piece.type == PieceType::user_defined || piece.type == PieceType::unused) return false;
    if (piece.type == PieceType::byte) {
      const int byte = byte_of(piece.text);
      if (byte < 0) return false;
      bytes[byte] = true;
    }
    if (piece.type != PieceType::normal) continue;
    const bool fresh = pieces.insert(piece.text).second;
    if (!fresh || valid_utf8_until(piece.text, 0) != piece.text.size() || !spaces_lead(piece.text)) return false;
  }
  for (const auto text : pieces) {
    for (size_t i = 0; i < text.size(); i += utf8_character_bytes(text, i)) {
      if (!pieces.contains(text.substr(i, utf8_character_bytes(text, i)))) return false;
    }
  }
  return std::all_of(bytes.begin(), bytes.end(), [](bool there) { return there; });
}

std::vector<std::string> normal_pieces(const SentencePieceModel& model) {
  std::vector<std::string> texts;
  for (const auto& piece : model.pieces) texts.push_back(piece.type == PieceType::normal ? piece.text : std::string());
  return texts;
}

size_t inner_cuts(const SentencePieceModel& model) {
  return std::transform_reduce(model.pieces.begin(), model.pieces.end(), size_t{0}, std::plus<>(),
                               [](const auto& piece) { return piece.text.size(); });
}

}  // namespace

std::unique_ptr<SentencePieceBpe> SentencePieceBpe::make(const SentencePieceModel& model) {
  return suits(model) ? std::unique_ptr<SentencePieceBpe>(new SentencePieceBpe(model)) : nullptr;
}

SentencePieceBpe::SentencePieceBpe(const SentencePieceModel& model)
    : pieces_(normal_pieces(model)),
      dummy_prefix_(model.dummy_prefix),
      characters_(pieces_),
      words_(pieces_),
      merges_(inner_cuts(model)) {
  alone_.fill(true);
  for (int32_t id = 0; id < static_cast<int32_t>(pieces_.size()); ++id) {
    const std::string& text = pieces_[id];
    if (model.pieces[id].type == PieceType::byte) byte_ids_[byte_of(model.pieces[id].text)] = id;
    if (one_character(text)) {
      characters_.add(id);
      continue;
    }
    for (const char c : text) {
      if (static_cast<unsigned char>(c) < 0x80) alone_[static_cast<unsigned char>(c)] = false;
    }
  }
  add_merges(model);
  add_words();
}

/// Two neighbours merge where together they are a piece, the piece of the highest score first, of equal scores the
/// leftmost.
void SentencePieceBpe::add_merges(const SentencePieceModel& model) {
  std::unordered_map<std::string_view, int32_t> ids;
  std::vector<int32_t> order;
  for (int32_t id = 0; id < static_cast<int32_t>(pieces_.size()); ++id) {
    if (pieces_[id].empty()) continue;
    ids.emplace(pieces_[id], id);
    if (!one_character(pieces_[id])) order.push_back(id);
  }
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return model.pieces[a].score > model.pieces[b].score; });
  uint32_t rank = 0;
  float previous = 0;
  for (const int32_t id : order) {
    const float score = model.pieces[id].score;
    if (id != order.front() && score != previous) ++rank;
    previous = score;
    const std::string_view text = pieces_[id];
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = ids.find(text.substr(0, cut)), right = ids.find(text.substr(cut));
      if (left != ids.end() && right != ids.end()) merges_.add(left->second, right->second, {rank, id});
    }
  }
}

void SentencePieceBpe::add_words() {
  PairMerger merger(merges_);
  std::vector<int32_t> symbols, ids;
  for (int32_t id = 0; id < static_cast<int32_t>(pieces_.size()); ++id) {
    if (pieces_[id].empty()) continue;
    ids.clear();
    symbols_of(pieces_[id], symbols);
    merger.merge(symbols, ids);
    if (ids.size() == 1 && ids[0] == id) words_.add(id);
  }
}

void SentencePieceBpe::symbols_of(std::string_view word, std::vector<int32_t>& symbols) const {
  symbols.clear();
  for (size_t i = 0; i < word.size();) {
    const auto character = word.substr(i, utf8_character_bytes(word, i));
    const int32_t id = characters_.find(character);
    if (id >= 0) {
      symbols.push_back(id);
    } else {
      for (const char c : character) symbols.push_back(byte_ids_[static_cast<unsigned char>(c)]);
    }
    i += character.size();
  }
}

/// Collects one word after the other, normalised, and writes their tokens.
class SentencePieceBpe::Encoder {
 public:
  Encoder(const SentencePieceBpe& bpe, std::vector<int32_t>& out) : bpe_(bpe), merger_(bpe.merges_), out_(out) {}

  void add_space() {
    if (!spaces_only_) end_word();
    word_ += kSpace;
  }
  void add(std::string_view character) {
    word_ += character;
    spaces_only_ = false;
  }
  void end_word() {
    if (word_.empty()) return;
    const int32_t id = bpe_.words_.find(word_);
    if (id >= 0) {
      out_.push_back(id);
    } else {
      bpe_.symbols_of(word_, symbols_);
      merger_.merge(symbols_, out_);
    }
    word_.clear();
    spaces_only_ = true;
  }

 private:
  const SentencePieceBpe& bpe_;
  PairMerger merger_;
  std::vector<int32_t>& out_;
  std::vector<int32_t> symbols_;
  std::string word_;
  bool spaces_only_ = true;  ///< so far
};

void SentencePieceBpe::encode(std::string_view text, std::vector<int32_t>& out) const {
  if (text.empty()) return;
  Encoder encoder(*this, out);
  if (dummy_prefix_) encoder.add_space();
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const size_t bytes = utf8_character_bytes(text, i);
    const auto character = bytes == 0 ? kReplacement : text.substr(i, bytes);
    if (byte == ' ' || character == kSpace) {
      encoder.add_space();
    } else if (byte < 0x80 && alone_[byte]) {
      encoder.end_word();
      encoder.add(character);
      encoder.end_word();
    } else {
      encoder.add(character);
    }
    i += bytes == 0 ? 1 : bytes;
  }
  encoder.end_word();
}

}  // namespace llmz::text
