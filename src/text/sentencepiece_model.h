#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/text/pair_merger.h"

namespace llmz::text {

/// The reason in a SentencePiece status ("Internal: ./src/x.cc(660) [a == b] Reason"), on one line.
std::string sentencepiece_message(const std::string& status);

/// What of a SentencePiece model file (protocol buffer message ModelProto, sentencepiece_model.proto) decides how text
/// is encoded.
struct SentencePieceModel {
  enum class PieceType : uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  struct Piece {
    std::string text;
    float score = 0;
    PieceType type = PieceType::normal;
  };
  std::vector<Piece> pieces;
  bool bpe = false;
  bool byte_fallback = false;
  bool space_as_suffix = false;
  bool has_character_map = false;  ///< some normalisation other than identity
  bool dummy_prefix = true;
  bool remove_extra_spaces = true;
  bool escape_spaces = true;
};
/// Throws Error for what is no such message; `name` is for the message.
SentencePieceModel read_sentencepiece_model(std::string_view bytes, const std::string& name);

/// Encodes as the SentencePiece library does, some ten times faster, for the kind of model that LLaMA's is: byte pairs
/// with byte fallback, identity normalisation, no piece with a space after another character. Such text falls into
/// words that no piece crosses, and each word is merged for itself.
class SentencePieceBpe {
 public:
  /// Null for models of another kind, which only the library encodes.
  static std::unique_ptr<SentencePieceBpe> make(const SentencePieceModel& model);
  void encode(std::string_view text, std::vector<int32_t>& out) const;

 private:
  class Encoder;
  explicit SentencePieceBpe(const SentencePieceModel& model);
  void add_merges(const SentencePieceModel& model);
  void add_words();
  /// The ids of `word`'s characters; those of its bytes where a character is no piece.
  void symbols_of(std::string_view word, std::vector<int32_t>& symbols) const;

  std::vector<std::string> pieces_;      ///< by id; "" for all but normal ones
  std::array<int32_t, 256> byte_ids_{};  ///< <0x00> ... <0xFF>
  std::array<bool, 128> alone_{};        ///< ASCII characters that are in no piece but their own
  bool dummy_prefix_;
  WordTable characters_;  ///< pieces of one character
  WordTable words_;
  MergeTable merges_;
};

}  // namespace llmz::text
