#include "src/text/sentencepiece_model.h"

#include <bit>
#include <cstring>

#include "llmz/core/error.h"
#include "src/text/tokenizer_files.h"

namespace llmz::text {
namespace {

/// Fields of one protocol buffer message, in order (protobuf.dev/programming-guides/encoding).
class ProtoReader {
 public:
  ProtoReader(std::string_view bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  bool next() {
    if (bytes_.empty()) return false;
    const uint64_t key = varint();
    field_ = static_cast<uint32_t>(key >> 3);
    value_ = 0;
    content_ = {};
    switch (key & 7) {
      case 0: value_ = varint(); break;
      case 1: content_ = take(8); break;
      case 2: content_ = take(varint()); break;
      case 5: content_ = take(4); break;
      default: damaged();
    }
    return true;
  }
  uint32_t field() const { return field_; }
  bool flag() const { return value_ != 0; }
  uint64_t number() const { return value_; }
  std::string_view content() const { return content_; }
  float real() const {
    if (content_.size() != sizeof(float)) damaged();
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; ++i) bits |= uint32_t{static_cast<unsigned char>(content_[i])} << (8 * i);
    return std::bit_cast<float>(bits);
  }

 private:
  [[noreturn]] void damaged() const { fail("{}: is not a whole SentencePiece model", name_); }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    damaged();
  }
  std::string_view take(uint64_t count) {
    if (count > bytes_.size()) damaged();
    const auto taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }

  std::string_view bytes_;
  const std::string& name_;
  uint32_t field_ = 0;
  uint64_t value_ = 0;
  std::string_view content_;
};

SentencePieceModel::Piece read_piece(std::string_view bytes, const std::string& name) {
  SentencePieceModel::Piece piece;
  for (ProtoReader fields(bytes, name); fields.next();) {
    if (fields.field() == 1) piece.text = fields.content();
    if (fields.field() == 2) piece.score = fields.real();
    if (fields.field() == 3) piece.type = static_cast<SentencePieceModel::PieceType>(fields.number());
  }
  return piece;
}

void read_trainer_spec(std::string_view bytes, const std::string& name, SentencePieceModel& model) {
  constexpr uint64_t kBpe = 2;
  for (ProtoReader fields(bytes, name); fields.next();) {
    if (fields.field() == 3) model.bpe = fields.number() == kBpe;
    if (fields.field() == 24) model.space_as_suffix = fields.flag();
    if (fields.field() == 35) model.byte_fallback = fields.flag();
  }
}

void read_normalizer_spec(std::string_view bytes, const std::string& name, SentencePieceModel& model) {
  for (ProtoReader fields(bytes, name); fields.next();) {
    if (fields.field() == 2) model.has_character_map = !fields.content().empty();
    if (fields.field() == 3) model.dummy_prefix = fields.flag();
    if (fields.field() == 4) model.remove_extra_spaces = fields.flag();
    if (fields.field() == 5) model.escape_spaces = fields.flag();
  }
}

}  // namespace

std::string sentencepiece_message(const std::string& status) {
  const size_t bracket = status.find("] ");
  const bool reason = bracket != std::string::npos && bracket + 2 < status.size();
  return printable(reason ? std::string_view(status).substr(bracket + 2) : std::string_view(status));
}

SentencePieceModel read_sentencepiece_model(std::string_view bytes, const std::string& name) {
  SentencePieceModel model;
  bool has_trainer_spec = false, has_normalizer_spec = false;
  for (ProtoReader fields(bytes, name); fields.next();) {
    if (fields.field() == 1) model.pieces.push_back(read_piece(fields.content(), name));
    if (fields.field() == 2) read_trainer_spec(fields.content(), name, model);
    if (fields.field() == 3) read_normalizer_spec(fields.content(), name, model);
    has_trainer_spec |= fields.field() == 2;
    has_normalizer_spec |= fields.field() == 3;
  }
  check(!model.pieces.empty() && has_trainer_spec && has_normalizer_spec,
        "{}: is not a whole SentencePiece model: it holds {} pieces{}{}", name, model.pieces.size(),
        has_trainer_spec ? "" : ", no training settings", has_normalizer_spec ? "" : ", no normalisation settings");
  return model;
}

}  // namespace llmz::text
