#include "llmz/core/error.h"
#include "src/text/tokenizer_files.h"

namespace llmz::text {
namespace {

constexpr int32_t kDocumentEnd = 256;

uint64_t bytes_hash() {
  Hasher hasher;
  hasher.add("bytes");
  return hasher.value();
}

/// Every byte is its own id.
class BytesTokenizer final : public Tokenizer {
 public:
  BytesTokenizer() : Tokenizer(bytes_hash()) {}

  std::string kind() const override { return "bytes"; }
  int64_t vocab_size() const override { return kDocumentEnd + 1; }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::optional<int32_t> eos() const override { return kDocumentEnd; }

  void encode(std::string_view text, std::vector<int32_t>& out) const override {
    const size_t before = out.size();
    out.resize(before + text.size());
    for (size_t i = 0; i < text.size(); ++i) out[before + i] = static_cast<unsigned char>(text[i]);
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    text.reserve(ids.size());
    for (const int32_t id : ids) {
      check_id(id);
      if (id != kDocumentEnd) text += static_cast<char>(id);
    }
    return text;
  }

  std::string token_text(int32_t id) const override {
    check_id(id);
    if (id == kDocumentEnd) return "<end>";
    const char byte = static_cast<char>(id);
    return printable({&byte, 1}, true);
  }

  void save(const std::filesystem::path& folder) const override {
    make_tokenizer_folder(folder);
    write_tokenizer_manifest(folder, *this);
  }

 private:
  static void check_id(int32_t id) {
    check(id >= 0 && id <= kDocumentEnd, "token id {} is outside the vocabulary of {}", id, kDocumentEnd + 1);
  }
};

std::unique_ptr<Tokenizer> load_bytes(const std::filesystem::path& /*folder*/) {
  return std::make_unique<BytesTokenizer>();
}

}  // namespace

extern const TokenizerRow kBytesTokenizer;
const TokenizerRow kBytesTokenizer = {.name = "bytes", .files = "the word bytes", .saved = {}, .load = load_bytes};

}  // namespace llmz::text
