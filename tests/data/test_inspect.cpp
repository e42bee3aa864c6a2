#include "llmz/data/inspect.h"

#include "data/data_helpers.h"
#include "llmz/data/prepare.h"

namespace llmz::data {
namespace {

TEST_CASE("inspection shows header, most frequent tokens and a decoded sample") {
  const TestFolder folder;
  PrepareOptions options;
  options.inputs = {write_file(folder / "a.txt", "abracadabra\nabracadabra").string()};
  options.out = folder / "out";
  options.validation_fraction = 0;
  prepare(options, *text::load_tokenizer("bytes"));
  const auto tokenizer = find_tokenizer(options.out);
  REQUIRE(tokenizer != nullptr);
  const auto shard = options.out / "train_000000.llmz";
  for (const auto& where : {options.out, shard}) {
    const Inspection seen = inspect(where, tokenizer.get(), {4, 7, 2});
    REQUIRE(seen.shards.size() == 1);
    CHECK(seen.shards[0].header.bytes_per_id == 2);
    CHECK(seen.tokens == 24);
    CHECK(seen.text_bytes == 23);
    CHECK(seen.distinct_ids == 7);  // a b c d r, line end, document end
    REQUIRE(seen.top.size() == 2);
    CHECK(seen.top[0].id == 'a');
    CHECK(seen.top[0].count == 10);
    CHECK(seen.top[0].text == "a");
    CHECK(seen.top[1].id == 'b');
    CHECK(seen.sample_text == "cadabra");
  }
  CHECK(inspect(shard, nullptr, {20, 99}).sample.size() == 4);
  CHECK(find_tokenizer(folder.path()) == nullptr);
}

TEST_CASE("inspection refuses what it cannot explain") {
  const TestFolder folder;
  const auto bytes = text::load_tokenizer("bytes");
  const auto path = write_shard(folder / "x.llmz", random_ids(1000, 257), 257, 99);
  CHECK(contains(error_of([&] { inspect(path, bytes.get()); }), "made by another tokenizer"));
  CHECK_NOTHROW(inspect(path, nullptr));
  std::string damaged = read_file(path);
  damaged[100] = static_cast<char>(damaged[100] ^ 1);
  write_file(path, damaged);
  CHECK(contains(error_of([&] { inspect(path, nullptr); }), "checksum"));
  CHECK_NOTHROW(inspect(path, nullptr, {0, 10, 10, false}));
  std::filesystem::create_directory(folder / "empty");
  CHECK(contains(error_of([&] { inspect(folder / "empty", nullptr); }), "no token shards"));
}

}  // namespace
}  // namespace llmz::data
