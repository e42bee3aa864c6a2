#include <cstring>
#include <thread>

#include "data/data_helpers.h"

namespace llmz::data {
namespace {

void overwrite_byte(const std::filesystem::path& path, std::streamoff at, char value) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(at);
  file.put(value);
}

TEST_CASE("shards give back the ids they were made of, at 2 and 4 bytes an id") {
  const TestFolder folder;
  struct Case {
    int64_t vocab_size;
    int bytes_per_id;
    size_t count;
  };
  // 65536 is the last vocabulary that fits 2 bytes; the counts straddle the writer's and the reader's buffers.
  for (const Case& c : {Case{257, 2, 0}, Case{257, 2, 1}, Case{65536, 2, 1'200'003}, Case{65537, 4, 600'001}}) {
    std::vector<int32_t> ids = random_ids(c.count, c.vocab_size);
    if (!ids.empty()) ids.back() = static_cast<int32_t>(c.vocab_size - 1);
    const auto path = write_shard(folder / "a.llmz", ids, c.vocab_size, 0xfedcba9876543210, 12345);
    const ShardReader shard = ShardReader::open(path);
    CHECK(shard.header().format == ShardHeader::Format::llmz);
    CHECK(shard.header().bytes_per_id == c.bytes_per_id);
    CHECK(shard.tokens() == static_cast<int64_t>(c.count));
    CHECK(shard.vocab_size() == c.vocab_size);
    CHECK(shard.tokenizer_hash() == 0xfedcba9876543210);
    CHECK(shard.text_bytes() == 12345);
    CHECK(std::filesystem::file_size(path) == 64 + c.count * static_cast<size_t>(c.bytes_per_id));
    CHECK((read_all(shard) == ids));
    CHECK_NOTHROW(shard.verify());
  }
}

TEST_CASE("the header lies on disk as docs/data.md says") {
  const TestFolder folder;
  const std::vector<int32_t> ids = {1, 258};
  const std::string bytes = read_file(write_shard(folder / "a.llmz", ids, 50257, 0x0102030405060708, 9));
  REQUIRE(bytes.size() == 68);
  CHECK(bytes.substr(0, 8) == "llmzshrd");
  const auto at = [&](size_t offset, auto value) {
    std::memcpy(&value, bytes.data() + offset, sizeof(value));
    return value;
  };
  CHECK(at(8, uint32_t{}) == 1);
  CHECK(at(12, uint32_t{}) == 2);
  CHECK(at(16, uint64_t{}) == 2);
  CHECK(at(24, uint64_t{}) == 50257);
  CHECK(at(32, uint64_t{}) == 0x0102030405060708);
  CHECK(at(40, uint64_t{}) == 9);
  CHECK(bytes.substr(64) == std::string("\x01\x00\x02\x01", 4));
  CHECK(at(48, uint32_t{}) == crc32(0, reinterpret_cast<const Bytef*>(bytes.data()) + 64, 4));
  CHECK(at(52, uint64_t{}) == 0);
  CHECK(at(60, uint32_t{}) == crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), 60));
}

TEST_CASE("ids may be appended in any portions, and read from anywhere by several threads") {
  const TestFolder folder;
  const std::vector<int32_t> ids = random_ids(100'000, 70'000);
  ShardWriter writer(folder / "a.llmz", 70'000, 7);
  for (size_t at = 0, part = 1; at < ids.size(); at += part, part = part * 2 + 1) {
    part = std::min(part, ids.size() - at);
    writer.append(std::span(ids).subspan(at, part), part);
  }
  writer.finish();
  const ShardReader shard = ShardReader::open(folder / "a.llmz");
  CHECK(shard.text_bytes() == ids.size());
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::vector<int32_t> part(3001);
      for (size_t first = t * 17; first + part.size() <= ids.size(); first += 997) {
        shard.read(static_cast<int64_t>(first), part);
        if (!std::equal(part.begin(), part.end(), ids.begin() + static_cast<std::ptrdiff_t>(first))) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  std::vector<int32_t> two(2);
  CHECK(contains(error_of([&] { shard.read(99'999, two); }), "the shard has 100000"));
  CHECK(contains(error_of([&] { shard.read(-1, two); }), "the shard has 100000"));
}

TEST_CASE("a shard appears under its name only when it is finished") {
  const TestFolder folder;
  const auto path = folder / "a.llmz";
  const std::vector<int32_t> ids = random_ids(1'000'000, 300);
  {
    ShardWriter writer(path, 300, 7);
    writer.append(ids);
    CHECK_FALSE(std::filesystem::exists(path));
    CHECK(std::filesystem::exists(folder / "a.llmz.tmp"));
    // What a killed run leaves behind is no shard even if somebody renames it.
    std::filesystem::copy(folder / "a.llmz.tmp", folder / "killed.llmz");
    CHECK_THROWS_AS(ShardReader::open(folder / "killed.llmz"), Error);
  }
  CHECK_FALSE(std::filesystem::exists(path));
  CHECK_FALSE(std::filesystem::exists(folder / "a.llmz.tmp"));

  ShardWriter writer(path, 300, 7);
  writer.finish();
  CHECK(std::filesystem::exists(path));
  CHECK_THROWS_AS(writer.append(ids), Error);
}

TEST_CASE("the writer refuses ids outside the vocabulary") {
  const TestFolder folder;
  ShardWriter writer(folder / "a.llmz", 300, 7);
  const std::vector<int32_t> past = {0, 299, 300}, negative = {-1};
  const std::string message = error_of([&] { writer.append(past); });
  CHECK(contains(message, "id 300 at position 2"));
  CHECK(contains(message, "vocabulary of 300"));
  CHECK_THROWS_AS(writer.append(negative), Error);
}

TEST_CASE("truncated and overlong shards are refused, with the sizes") {
  const TestFolder folder;
  const auto path = write_shard(folder / "a.llmz", random_ids(1000, 300), 300);
  const std::string whole = read_file(path);
  write_file(path, whole.substr(0, whole.size() - 1));
  const std::string message = error_of([&] { ShardReader::open(path); });
  CHECK(contains(message, path.string()));
  CHECK(contains(message, "truncated"));
  CHECK(contains(message, "2064"));
  CHECK(contains(message, "2063"));
  write_file(path, whole + "x");
  CHECK(contains(error_of([&] { ShardReader::open(path); }), "2065"));
  for (const size_t size : {0u, 3u, 8u, 40u, 63u}) {
    write_file(path, whole.substr(0, size));
    CHECK(contains(error_of([&] { ShardReader::open(path); }), path.string()));
  }
}

TEST_CASE("a shard cut short while it is open is an error, not zeros") {
  const TestFolder folder;
  const auto path = write_shard(folder / "a.llmz", random_ids(1000, 300), 300);
  const ShardReader shard = ShardReader::open(path);
  std::filesystem::resize_file(path, 500);
  CHECK(contains(error_of([&] { read_all(shard); }), "cut short"));
}

TEST_CASE("damage is found: in the header at once, in the tokens by verify") {
  const TestFolder folder;
  const auto path = write_shard(folder / "a.llmz", random_ids(100'000, 300), 300);
  const std::string whole = read_file(path);
  for (const std::streamoff at : {12, 16, 24, 33, 41, 50, 55, 61}) {
    write_file(path, whole);
    overwrite_byte(path, at, static_cast<char>(whole[static_cast<size_t>(at)] ^ 0x40));
    INFO("byte " << at);
    CHECK(contains(error_of([&] { ShardReader::open(path); }), "header is damaged"));
  }
  write_file(path, whole);
  overwrite_byte(path, 8, 2);
  CHECK(contains(error_of([&] { ShardReader::open(path); }), "format version 2"));

  write_file(path, whole);
  overwrite_byte(path, 64 + 2 * 54321, static_cast<char>(whole[64 + 2 * 54321] ^ 1));
  CHECK(contains(error_of([&] { ShardReader::open(path).verify(); }), "checksum"));

  write_file(path, whole);
  overwrite_byte(path, 64 + 2 * 54321 + 1, 0x7f);  // the high byte: id 32512 and more
  const std::string message = error_of([&] { read_all(ShardReader::open(path)); });
  CHECK(contains(message, path.string()));
  CHECK(contains(message, "at position 54321"));
  CHECK(contains(message, "vocabulary of 300"));
}

TEST_CASE("llm.c shards are read as they are") {
  const TestFolder folder;
  const auto path = write_llmc_shard(folder / "tiny_train.bin", {50256, 15496, 0, 65535});
  const ShardReader shard = ShardReader::open(path);
  CHECK(shard.header().format == ShardHeader::Format::llmc);
  CHECK(shard.tokens() == 4);
  CHECK(shard.vocab_size() == 0);
  CHECK(shard.tokenizer_hash() == 0);
  CHECK((read_all(shard) == std::vector<int32_t>{50256, 15496, 0, 65535}));
  CHECK_NOTHROW(shard.verify());
  std::vector<int32_t> ids(4);
  CHECK(contains(error_of([&] { shard.read(0, ids, 50257); }), "id 65535 at position 3"));

  const std::string whole = read_file(path);
  write_file(path, whole.substr(0, whole.size() - 2));
  CHECK(contains(error_of([&] { ShardReader::open(path); }), "1032 bytes expected"));
  write_file(path, whole.substr(0, 100));
  CHECK(contains(error_of([&] { ShardReader::open(path); }), "truncated"));
  write_llmc_shard(path, {1, 2}, 7);
  CHECK(contains(error_of([&] { ShardReader::open(path); }), "version 7"));
}

TEST_CASE("files that are no shards are refused with a hint") {
  const TestFolder folder;
  const std::string bare_ids("\x10\x27\x11\x27\x12\x27\x13\x27", 8);  // as nanoGPT writes them
  CHECK(contains(error_of([&] { ShardReader::open(write_file(folder / "train.bin", bare_ids)); }), "nanoGPT"));
  CHECK(contains(error_of([&] { ShardReader::open(folder / "none.llmz"); }), "none.llmz': No such file"));
  CHECK(contains(error_of([&] { ShardReader::open(folder.path()); }), "a folder"));
  CHECK(contains(error_of([&] { ShardWriter(folder / "no/such/folder.llmz", 300, 7); }), "cannot create"));
}

}  // namespace
}  // namespace llmz::data
