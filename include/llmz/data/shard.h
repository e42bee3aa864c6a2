#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace llmz::io {
class InputFile;
}

namespace llmz::data {

/// What the first bytes of a shard say. docs/data.md has both layouts byte by byte.
struct ShardHeader {
  enum class Format : uint8_t { llmz, llmc };
  Format format = Format::llmz;
  int bytes_per_id = 2;         ///< 2 up to a vocabulary of 65536, else 4
  int64_t tokens = 0;           ///< ids in the payload
  int64_t vocab_size = 0;       ///< every id is below; 0: not known (llm.c)
  uint64_t tokenizer_hash = 0;  ///< Tokenizer::hash() of the one that made the ids; 0: not known
  uint64_t text_bytes = 0;      ///< bytes of original text that the ids stand for; 0: not known
  uint32_t payload_crc = 0;     ///< zlib's crc32 over the payload; 0 for llm.c, which has none
  int64_t payload_offset = 0;   ///< bytes from the start of the file
};

class PosixFile;

/// Reads token ids from one shard file: llmz's own format, or llm.c's `.bin` (magic 20240520, version 1).
/// Reads go through pread, never a mapping, so the corpus does not count into the process's resident memory.
/// All methods are thread-safe.
class ShardReader {
 public:
  /// Reads and checks the header, and the file's size against the count it states. Throws Error naming the file for an
  /// unknown format, a damaged header or a truncated or overlong file.
  static ShardReader open(const std::filesystem::path& path);

  ShardReader(ShardReader&&) noexcept;
  ShardReader& operator=(ShardReader&&) noexcept;
  ~ShardReader();

  const std::filesystem::path& path() const { return path_; }
  const ShardHeader& header() const { return header_; }
  int64_t tokens() const { return header_.tokens; }
  int64_t vocab_size() const { return header_.vocab_size; }
  uint64_t tokenizer_hash() const { return header_.tokenizer_hash; }
  uint64_t text_bytes() const { return header_.text_bytes; }

  /// out[i] = id at `first + i`. Throws Error when the range leaves the shard, the file cannot be read, or an id is not
  /// below the vocabulary size (or below `id_bound`, where that is smaller and not 0).
  void read(int64_t first, std::span<int32_t> out, int64_t id_bound = 0) const;

  /// Reads the whole payload: checksum (where the format has one) and every id. Throws Error on damage.
  void verify() const;

 private:
  ShardReader(std::filesystem::path path, std::unique_ptr<io::InputFile> file, ShardHeader header);
  [[noreturn]] void refuse_id(int32_t id, int64_t position, int64_t bound) const;
  std::filesystem::path path_;
  std::unique_ptr<io::InputFile> file_;
  ShardHeader header_;
};

/// Writes one shard as a stream. Ids go to `<path>.tmp`; `finish` completes the header, fsyncs and renames, so a file
/// under its final name is always whole. Dropped without `finish`, the writer removes what it wrote.
class ShardWriter {
 public:
  /// Ids take 2 bytes up to a vocabulary of 65536, else 4. Throws Error when the file cannot be made.
  ShardWriter(std::filesystem::path path, int64_t vocab_size, uint64_t tokenizer_hash);
  ShardWriter(ShardWriter&&) noexcept;
  ShardWriter& operator=(ShardWriter&&) = delete;
  ~ShardWriter();

  /// Appends ids, which stand for `text_bytes` bytes of original text. Throws Error for an id outside
  /// [0, vocab_size) and when the disk is full.
  void append(std::span<const int32_t> ids, uint64_t text_bytes = 0);
  int64_t tokens() const { return header_.tokens; }
  /// The shard appears under its name. Nothing may be appended afterwards.
  void finish();

 private:
  void flush();
  [[noreturn]] void refuse_id(int32_t id, int64_t position) const;
  std::filesystem::path path_;
  std::unique_ptr<PosixFile> file_;  // null once finished or moved from
  ShardHeader header_;
  std::vector<unsigned char> buffer_;  // encoded ids not yet written
};

}  // namespace llmz::data
