#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "llmz/core/error.h"
#include "llmz/data/shard.h"
#include "src/data/posix_file.h"
#include "src/data/shard_layout.h"

namespace llmz::data {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

template <class T>
void put(std::array<unsigned char, ShardLayout::kBytes>& header, size_t at, T value) {
  std::memcpy(header.data() + at, &value, sizeof(value));
}

std::array<unsigned char, ShardLayout::kBytes> encode_header(const ShardHeader& h) {
  std::array<unsigned char, ShardLayout::kBytes> bytes{};
  std::memcpy(bytes.data(), ShardLayout::kMagic.data(), ShardLayout::kMagic.size());
  put(bytes, ShardLayout::kVersionAt, ShardLayout::kVersion);
  put(bytes, ShardLayout::kBytesPerIdAt, static_cast<uint32_t>(h.bytes_per_id));
  put(bytes, ShardLayout::kTokensAt, static_cast<uint64_t>(h.tokens));
  put(bytes, ShardLayout::kVocabSizeAt, static_cast<uint64_t>(h.vocab_size));
  put(bytes, ShardLayout::kTokenizerHashAt, h.tokenizer_hash);
  put(bytes, ShardLayout::kTextBytesAt, h.text_bytes);
  put(bytes, ShardLayout::kPayloadCrcAt, h.payload_crc);
  put(bytes, ShardLayout::kHeaderCrcAt,
      static_cast<uint32_t>(crc32(0, bytes.data(), static_cast<uInt>(ShardLayout::kHeaderCrcAt))));
  return bytes;
}

}  // namespace

ShardWriter::ShardWriter(std::filesystem::path path, int64_t vocab_size, uint64_t tokenizer_hash)
    : path_(std::move(path)) {
  check(vocab_size > 0 && vocab_size <= INT32_MAX, "{}: a shard needs a vocabulary of 1 to {} ids, got {}",
        path_.string(), INT32_MAX, vocab_size);
  header_.bytes_per_id = vocab_size <= 65536 ? 2 : 4;
  header_.vocab_size = vocab_size;
  header_.tokenizer_hash = tokenizer_hash;
  buffer_.reserve(kBufferBytes);
  file_ = std::make_unique<PosixFile>(PosixFile::create(unfinished_name(path_)));
  // Holds the place; the counts are known at the end. Zeros are no valid header.
  const std::array<unsigned char, ShardLayout::kBytes> blank{};
  file_->write(blank.data(), blank.size());
}

ShardWriter::ShardWriter(ShardWriter&&) noexcept = default;

ShardWriter::~ShardWriter() {
  if (!file_) return;
  file_.reset();
  std::error_code ignored;
  std::filesystem::remove(unfinished_name(path_), ignored);
}

void ShardWriter::append(std::span<const int32_t> ids, uint64_t text_bytes) {
  check(file_ != nullptr, "{}: nothing can be appended to a finished shard", path_.string());
  const auto width = static_cast<size_t>(header_.bytes_per_id);
  while (!ids.empty()) {
    const size_t part = std::min(ids.size(), (kBufferBytes - buffer_.size()) / width);
    const size_t at = buffer_.size();
    buffer_.resize(at + part * width);
    for (size_t i = 0; i < part; ++i) {
      if (ids[i] < 0 || ids[i] >= header_.vocab_size) refuse_id(ids[i], header_.tokens + static_cast<int64_t>(i));
      std::memcpy(buffer_.data() + at + i * width, &ids[i], width);  // little-endian: the low bytes come first
    }
    header_.tokens += static_cast<int64_t>(part);
    ids = ids.subspan(part);
    if (buffer_.size() + width > kBufferBytes) flush();
  }
  header_.text_bytes += text_bytes;
}

void ShardWriter::refuse_id(int32_t id, int64_t position) const {
  fail("{}: id {} at position {} is outside the vocabulary of {}; tokenizer and vocabulary size disagree",
       path_.string(), id, position, header_.vocab_size);
}

void ShardWriter::flush() {
  header_.payload_crc =
      static_cast<uint32_t>(crc32(header_.payload_crc, buffer_.data(), static_cast<uInt>(buffer_.size())));
  file_->write(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void ShardWriter::finish() {
  check(file_ != nullptr, "{}: already finished", path_.string());
  flush();
  const auto header = encode_header(header_);
  file_->write_at(header.data(), header.size(), 0);
  file_->sync();
  file_->close();
  publish(unfinished_name(path_), path_);
  file_.reset();
}

}  // namespace llmz::data
