#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "llmz/core/error.h"
#include "llmz/data/shard.h"
#include "llmz/io/files.h"
#include "src/data/shard_layout.h"

namespace llmz::data {
namespace {

constexpr int64_t kReadTokens = int64_t{1} << 14;  // ids converted at a time: the 2-byte copy stays in cache

template <class T>
T get(const unsigned char* bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes + at, sizeof(value));
  return value;
}

ShardHeader parse_llmz_header(const std::string& name, const unsigned char* bytes) {
  const auto version = get<uint32_t>(bytes, ShardLayout::kVersionAt);
  check(version == ShardLayout::kVersion, "{}: shard format version {}; this llmz reads version {}", name, version,
        ShardLayout::kVersion);
  const auto crc = static_cast<uint32_t>(crc32(0, bytes, static_cast<uInt>(ShardLayout::kHeaderCrcAt)));
  check(crc == get<uint32_t>(bytes, ShardLayout::kHeaderCrcAt),
        "{}: the shard's header is damaged (checksum mismatch); prepare the data again", name);
  ShardHeader header;
  header.bytes_per_id = static_cast<int>(get<uint32_t>(bytes, ShardLayout::kBytesPerIdAt));
  const auto tokens = get<uint64_t>(bytes, ShardLayout::kTokensAt);
  const auto vocab_size = get<uint64_t>(bytes, ShardLayout::kVocabSizeAt);
  check((header.bytes_per_id == 2 || header.bytes_per_id == 4) && tokens < (uint64_t{1} << 60) && vocab_size > 0 &&
            vocab_size <= INT32_MAX,
        "{}: impossible shard header: {} bytes an id, {} tokens, vocabulary {}", name, header.bytes_per_id, tokens,
        vocab_size);
  header.tokens = static_cast<int64_t>(tokens);
  header.vocab_size = static_cast<int64_t>(vocab_size);
  header.tokenizer_hash = get<uint64_t>(bytes, ShardLayout::kTokenizerHashAt);
  header.text_bytes = get<uint64_t>(bytes, ShardLayout::kTextBytesAt);
  header.payload_crc = get<uint32_t>(bytes, ShardLayout::kPayloadCrcAt);
  header.payload_offset = static_cast<int64_t>(ShardLayout::kBytes);
  return header;
}

ShardHeader parse_llmc_header(const std::string& name, const unsigned char* bytes) {
  const auto version = get<int32_t>(bytes, 4);
  check(version == LlmcLayout::kVersion, "{}: llm.c shard of version {}; llmz reads version {} (uint16 ids)", name,
        version, LlmcLayout::kVersion);
  const auto tokens = get<int32_t>(bytes, 8);
  check(tokens >= 0, "{}: llm.c shard with a negative token count, {}", name, tokens);
  ShardHeader header;
  header.format = ShardHeader::Format::llmc;
  header.tokens = tokens;
  header.payload_offset = static_cast<int64_t>(LlmcLayout::kBytes);
  return header;
}

ShardHeader read_header(const io::InputFile& file) {
  const std::string name = file.path().string();
  const uint64_t size = file.size();
  std::array<unsigned char, ShardLayout::kBytes> bytes{};
  check(size > 0, "{}: an empty file, not a token shard", name);
  file.read(bytes.data(), std::min<size_t>(size, bytes.size()), 0);
  if (std::memcmp(bytes.data(), ShardLayout::kMagic.data(), ShardLayout::kMagic.size()) == 0) {
    check(size >= ShardLayout::kBytes, "{}: truncated shard: {} bytes, the header alone has {}", name, size,
          ShardLayout::kBytes);
    return parse_llmz_header(name, bytes.data());
  }
  if (size >= 4 && get<int32_t>(bytes.data(), 0) == LlmcLayout::kMagic) {
    check(size >= LlmcLayout::kBytes, "{}: truncated llm.c shard: {} bytes, the header alone has {}", name, size,
          LlmcLayout::kBytes);
    return parse_llmc_header(name, bytes.data());
  }
  fail(
      "{}: not a token shard: neither llmz's nor llm.c's magic number is at its start (files of bare ids, as nanoGPT "
      "writes them, state neither count nor vocabulary); make shards from the text with `llmz data prepare`",
      name);
}

}  // namespace

ShardReader::ShardReader(std::filesystem::path path, std::unique_ptr<io::InputFile> file, ShardHeader header)
    : path_(std::move(path)), file_(std::move(file)), header_(header) {}
ShardReader::ShardReader(ShardReader&&) noexcept = default;
ShardReader& ShardReader::operator=(ShardReader&&) noexcept = default;
ShardReader::~ShardReader() = default;

ShardReader ShardReader::open(const std::filesystem::path& path) {
  auto file = std::make_unique<io::InputFile>(path);
  const ShardHeader header = read_header(*file);
  const uint64_t expected = static_cast<uint64_t>(header.payload_offset) +
                            static_cast<uint64_t>(header.tokens) * static_cast<uint64_t>(header.bytes_per_id);
  const uint64_t size = file->size();
  check(size >= expected, "{}: truncated shard: {} bytes expected for {} tokens, {} there; prepare or copy it again",
        path.string(), expected, header.tokens, size);
  check(size == expected, "{}: damaged shard: {} bytes expected for {} tokens, {} there", path.string(), expected,
        header.tokens, size);
  return ShardReader(path, std::move(file), header);
}

void ShardReader::read(int64_t first, std::span<int32_t> out, int64_t id_bound) const {
  const auto count = static_cast<int64_t>(out.size());
  check(first >= 0 && first <= header_.tokens && count <= header_.tokens - first,
        "{}: tokens {} to {} asked for, the shard has {}", path_.string(), first, first + count, header_.tokens);
  int64_t bound = header_.vocab_size > 0 ? header_.vocab_size : int64_t{65536};
  if (id_bound > 0) bound = std::min(bound, id_bound);
  std::array<uint16_t, kReadTokens> narrow;
  for (int64_t done = 0; done < count; done += kReadTokens) {
    const auto part = static_cast<size_t>(std::min(kReadTokens, count - done));
    int32_t* to = out.data() + done;
    const auto at = static_cast<uint64_t>(header_.payload_offset + (first + done) * header_.bytes_per_id);
    if (header_.bytes_per_id == 2) {
      file_->read(narrow.data(), part * 2, at);
      std::copy_n(narrow.begin(), part, to);
    } else {
      file_->read(to, part * 4, at);
    }
    for (size_t i = 0; i < part; ++i) {
      if (to[i] < 0 || to[i] >= bound) refuse_id(to[i], first + done + static_cast<int64_t>(i), bound);
    }
  }
}

void ShardReader::refuse_id(int32_t id, int64_t position, int64_t bound) const {
  fail("{}: id {} at position {} is outside the vocabulary of {}", path_.string(), id, position, bound);
}

void ShardReader::verify() const {
  if (header_.format == ShardHeader::Format::llmz) {
    const uint64_t total = static_cast<uint64_t>(header_.tokens) * static_cast<uint64_t>(header_.bytes_per_id);
    std::vector<unsigned char> buffer(size_t{1} << 20);
    uint32_t crc = 0;
    for (uint64_t done = 0; done < total;) {
      const auto part = static_cast<size_t>(std::min<uint64_t>(buffer.size(), total - done));
      file_->read(buffer.data(), part, static_cast<uint64_t>(header_.payload_offset) + done);
      crc = static_cast<uint32_t>(crc32(crc, buffer.data(), static_cast<uInt>(part)));
      done += part;
    }
    check(crc == header_.payload_crc,
          "{}: the tokens are damaged: checksum {:08x} expected, {:08x} found; prepare or copy the shard again",
          path_.string(), header_.payload_crc, crc);
  }
  std::vector<int32_t> ids(static_cast<size_t>(kReadTokens));
  for (int64_t done = 0; done < header_.tokens; done += kReadTokens) {
    read(done, std::span(ids).first(static_cast<size_t>(std::min(kReadTokens, header_.tokens - done))));
  }
}

}  // namespace llmz::data
