#pragma once

#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "catch.h"
#include "llmz/core/error.h"
#include "llmz/core/random.h"
#include "llmz/data/shard.h"

namespace llmz::data {

/// A folder of its own for a test, gone afterwards.
class TestFolder {
 public:
  TestFolder() {
    static std::atomic<int> count = 0;
    path_ = std::filesystem::temp_directory_path() / fmt::format("llmz_test_{}_{}", ::getpid(), count++);
    std::filesystem::create_directories(path_);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  ~TestFolder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::filesystem::path write_file(const std::filesystem::path& path, const std::string& content) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

inline std::string gzip(const std::string& text) {
  z_stream z{};
  REQUIRE(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(deflateBound(&z, text.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

inline std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  const size_t size = ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3);
  REQUIRE(ZSTD_isError(size) == 0);
  out.resize(size);
  return out;
}

/// The message of the llmz::Error that `action` throws; empty, and a failed check, when it throws none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  FAIL_CHECK("no Error was thrown");
  return {};
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// `count` ids below `vocab_size`, always the same for the same seed.
inline std::vector<int32_t> random_ids(size_t count, int64_t vocab_size, uint64_t seed = 1) {
  const RandomStream draws(seed, Purpose::test);
  std::vector<int32_t> ids(count);
  for (size_t i = 0; i < count; ++i) ids[i] = static_cast<int32_t>(draws.below(i, static_cast<uint64_t>(vocab_size)));
  return ids;
}

inline std::filesystem::path write_shard(const std::filesystem::path& path, std::span<const int32_t> ids,
                                         int64_t vocab_size, uint64_t tokenizer_hash = 7, uint64_t text_bytes = 0) {
  ShardWriter writer(path, vocab_size, tokenizer_hash);
  writer.append(ids, text_bytes);
  writer.finish();
  return path;
}

/// A shard as llm.c's scripts write it.
inline std::filesystem::path write_llmc_shard(const std::filesystem::path& path, const std::vector<uint16_t>& ids,
                                              int32_t version = 1) {
  std::vector<int32_t> header(256);
  header[0] = 20240520;
  header[1] = version;
  header[2] = static_cast<int32_t>(ids.size());
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(header.data()), 1024);
  file.write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(ids.size() * 2));
  return path;
}

inline std::vector<int32_t> read_all(const ShardReader& shard) {
  std::vector<int32_t> ids(static_cast<size_t>(shard.tokens()));
  shard.read(0, ids);
  return ids;
}

}  // namespace llmz::data
