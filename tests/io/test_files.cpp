#include <optional>

#include "catch.h"
#include "llmz/core/error.h"
#include "llmz/io/files.h"
#include "scratch.h"

using llmz::Error;
namespace io = llmz::io;
using Names = std::set<std::string>;

TEST_CASE("crc32 gives the published check value, in one piece or several", "[files]") {
  io::Crc32 whole, pieces;
  whole.update("123456789", 9);
  pieces.update("1234", 4);
  pieces.update("", 0);
  pieces.update("56789", 5);
  CHECK(whole.value() == 0xcbf43926);  // CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms
  CHECK(pieces.value() == whole.value());
}

TEST_CASE("text goes to disk and back, and replaces what was there", "[files]") {
  const ScratchFolder folder;
  io::write_text(folder / "a.txt", "first");
  io::write_text(folder / "a.txt", "123456789");
  CHECK(io::read_text(folder / "a.txt") == "123456789");
  CHECK(io::digest_file(folder / "a.txt") == io::FileDigest{9, 0xcbf43926});
  io::write_text(folder / "empty", "");
  CHECK(io::read_text(folder / "empty").empty());
  CHECK(io::digest_file(folder / "empty") == io::FileDigest{0, 0});
  CHECK(names_in(folder.path()) == Names{"a.txt", "empty"});
}

TEST_CASE("a digest of many pieces is that of the whole", "[files]") {
  const ScratchFolder folder;
  std::string content(3'500'001, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * i >> 7);
  io::write_text(folder / "big", content);
  io::Crc32 crc;
  crc.update(content.data(), content.size());
  CHECK(io::digest_file(folder / "big") == io::FileDigest{content.size(), crc.value()});
  CHECK(io::read_text(folder / "big") == content);
}

TEST_CASE("an output file that is not committed leaves nothing", "[files]") {
  const ScratchFolder folder;
  io::write_text(folder / "a", "old");
  {
    io::OutputFile file(folder / "a");
    file.reserve(1 << 20);
    file.write("new");
    CHECK(names_in(folder.path()).size() == 2);
  }
  CHECK(io::read_text(folder / "a") == "old");
  CHECK(names_in(folder.path()) == Names{"a"});

  io::OutputFile file(folder / "a");
  file.reserve(1 << 20);  // more than is written: must not stay as zeros
  file.write("new");
  const io::FileDigest committed = file.commit();
  CHECK(committed == io::digest_file(folder / "a"));
  CHECK(io::read_text(folder / "a") == "new");
}

TEST_CASE("files that cannot be read or written are named", "[files]") {
  const ScratchFolder folder;
  CHECK_THROWS_WITH(io::read_text(folder / "none"), contains("none") && contains("No such file"));
  CHECK_THROWS_WITH(io::read_text(folder.path()), contains("folder"));
  CHECK_THROWS_WITH(io::write_text(folder / "no/such/folder", "x"), contains("no/such/folder"));
  put(folder / "file", "x");
  CHECK_THROWS_WITH(io::make_folder(folder / "file/below"), contains("file"));
  const io::InputFile file(folder / "file");
  char byte[2];
  CHECK_THROWS_WITH(file.read(byte, 2, 0), contains("too early"));
}

TEST_CASE("make_folder makes every level once", "[files]") {
  const ScratchFolder folder;
  io::make_folder(folder / "a/b/c/");
  io::make_folder(folder / "a/b/c");
  CHECK(std::filesystem::is_directory(folder / "a/b/c"));
}

TEST_CASE("JSON errors say file, line, column and what was expected", "[json]") {
  const ScratchFolder folder;
  put(folder / "c.json", "{\n  \"steps\": 10,\n  \"lr\" 0.1\n}\n");
  CHECK_THROWS_WITH(io::read_json(folder / "c.json"), contains("c.json:3:10: ") && contains("expected ':'"));
  try {
    io::read_json(folder / "c.json");
  } catch (const Error& e) {
    CHECK_THAT(e.what(), !contains("json.exception") && !contains("\n"));
  }
  CHECK_THROWS_WITH(io::parse_json("", "here"), contains("here:1:1: unexpected end of input"));
  CHECK_THROWS_WITH(io::parse_json("[1,\n2", "here"), contains("here:2:2: unexpected end of input"));
  CHECK_THROWS_WITH(io::parse_json("{} x", "here"), contains("here:1:4: "));
  CHECK_THROWS_WITH(io::parse_json("// no\n{}", "here"), contains("here:1:1: "));
  CHECK_THROWS_WITH(io::parse_json("[1e999]", "here"), contains("here: ") && contains("1e999"));
}

TEST_CASE("a key that stands twice is an error, in its own object only", "[json]") {
  CHECK_THROWS_WITH(io::parse_json(R"({"a": {"b": 1, "c": [{"b": 2}], "b": 3}})", "here"), contains("'a.b'"));
  CHECK(io::parse_json(R"({"a": {"b": 1}, "b": [{"b": 2}, {"b": 3}]})", "here")["b"][1]["b"] == 3);
}

TEST_CASE("JSON goes to disk and back", "[json]") {
  const ScratchFolder folder;
  const nlohmann::json value = {{"lr", 3e-4}, {"name", "naïve\n"}, {"list", {1, -2, 3.5}}, {"none", nullptr}};
  io::write_json(folder / "v.json", value);
  CHECK(io::read_json(folder / "v.json") == value);
  CHECK_THROWS_WITH(io::write_json(folder / "v.json", "\xff"), contains("v.json"));
  CHECK(io::read_json(folder / "v.json") == value);
}

TEST_CASE("a folder has one lock", "[files]") {
  const ScratchFolder folder;
  std::optional<io::FolderLock> first = io::FolderLock::try_acquire(folder.path());
  REQUIRE(first);
  CHECK_FALSE(io::FolderLock::try_acquire(folder.path()));
  const io::FolderLock moved = *std::move(first);
  first.reset();
  CHECK_FALSE(io::FolderLock::try_acquire(folder.path()));
  { const io::FolderLock last(std::move(const_cast<io::FolderLock&>(moved))); }
  CHECK(io::FolderLock::try_acquire(folder.path()));
  CHECK_THROWS_AS(io::FolderLock::try_acquire(folder / "none"), Error);
}
