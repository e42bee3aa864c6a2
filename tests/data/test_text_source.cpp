#include "llmz/data/text_source.h"

#include "data/data_helpers.h"
#include "src/data/block_reader.h"
#include "src/data/byte_stream.h"
#include "src/data/json_text.h"

namespace llmz::data {
namespace {

std::string decompressed(const std::filesystem::path& path, size_t portion = 1000) {
  const auto stream = ByteStream::open(path);
  std::string text, part(portion, '\0');
  while (const size_t got = stream->read(part.data(), part.size())) text.append(part, 0, got);
  return text;
}

/// Lines of words, `bytes` long or a little more.
std::string english(size_t bytes) {
  const RandomStream draws(3, Purpose::test);
  std::string text;
  for (uint64_t i = 0; text.size() < bytes; ++i) {
    text += fmt::format("word{}{}", draws.below(i, 5000), draws.below(i + (1u << 20), 9) == 0 ? "\n" : " ");
  }
  return text;
}

std::vector<std::string> names(const std::vector<TextFile>& files, const std::filesystem::path& below) {
  std::vector<std::string> out;
  for (const TextFile& file : files) out.push_back(std::filesystem::relative(file.path, below).string());
  return out;
}

std::vector<std::string> documents(const std::vector<TextFile>& files, const TextOptions& options) {
  TextReader reader(files, options);
  std::vector<std::string> out;
  for (std::string text; reader.next(text);) out.push_back(text);
  return out;
}

std::vector<std::string> documents(const std::filesystem::path& path, const TextOptions& options = {}) {
  const std::vector<std::string> inputs = {path.string()};
  return documents(find_text_files(inputs), options);
}

/// Documents put together again from their pieces, as the marks on these say.
std::vector<std::string> joined_documents(const std::filesystem::path& path, const TextOptions& options) {
  const std::vector<std::string> inputs = {path.string()};
  BlockReader reader(find_text_files(inputs), options, SplitOptions{});
  std::vector<std::string> out;
  bool open = false;
  while (const auto block = reader.next()) {
    for (const TextPiece& piece : block->pieces) {
      CHECK(piece.starts_document == !open);
      CHECK(piece.length <= kPieceBytes);
      if (piece.starts_document) out.emplace_back();
      out.back() += piece_text(reader.files()[block->file], *block, piece, options);
      open = !piece.ends_document;
    }
  }
  CHECK_FALSE(open);
  return out;
}

TEST_CASE("gzip and zstd are seen through, also when several members or frames follow each other") {
  const TestFolder folder;
  const std::string a = english(700'000), b = "second part\n";
  CHECK(decompressed(write_file(folder / "a.txt", a)) == a);
  for (const size_t portion : {size_t{1}, size_t{4096}, size_t{1} << 21}) {
    const std::string& first = portion == 1 ? b : a;
    CHECK(decompressed(write_file(folder / "a.gz", gzip(first) + gzip(b)), portion) == first + b);
    CHECK(decompressed(write_file(folder / "a.zst", zstd(first) + zstd(b)), portion) == first + b);
  }
  CHECK(decompressed(write_file(folder / "padded.gz", gzip(b) + std::string(600, '\0'))) == b);
  CHECK(decompressed(write_file(folder / "renamed.txt", gzip(a))) == a);
  CHECK(decompressed(write_file(folder / "empty.txt", "")).empty());
  CHECK(decompressed(write_file(folder / "empty.gz", gzip(""))).empty());
}

TEST_CASE("damaged compressed files name themselves") {
  const TestFolder folder;
  const std::string text = english(300'000);
  for (const bool gz : {true, false}) {
    const std::string name = gz ? "a.txt.gz" : "a.txt.zst", packed = gz ? gzip(text) : zstd(text);
    const auto path = folder / name;
    const auto message = [&](const std::string& content) {
      write_file(path, content);
      return error_of([&] { decompressed(path); });
    };
    CHECK(contains(message(packed.substr(0, packed.size() / 2)), "truncated"));
    CHECK(contains(message(packed.substr(0, packed.size() - 1)), "truncated"));
    std::string damaged = packed;
    for (size_t i = damaged.size() / 2; i < damaged.size() / 2 + 64; ++i) damaged[i] = static_cast<char>(~damaged[i]);
    CHECK(contains(message(damaged), "damaged"));
    CHECK(contains(message(packed + "trailing rubbish"), "damaged"));
    CHECK(contains(message("plain text"), "in spite of its name"));
    CHECK(contains(message("plain text"), name));
  }
}

TEST_CASE("inputs: files, folders and patterns, each file once") {
  const TestFolder folder;
  for (const char* name : {"b.txt", "a.txt", "deep/er/c.jsonl.gz", "deep/d.md", "deep/e.json", "deep/f.json.zst",
                           ".hidden/g.txt", "deep/.h.txt", "deep/i.llmz", "notes.cpp"}) {
    write_file(folder / name, "x");
  }
  const auto find = [&](std::vector<std::string> inputs) {
    for (std::string& input : inputs) input = (folder / input).string();
    return find_text_files(inputs);
  };
  using Names = std::vector<std::string>;
  CHECK(names(find({""}), folder.path()) ==
        Names{"a.txt", "b.txt", "deep/d.md", "deep/er/c.jsonl.gz", "deep/f.json.zst"});
  CHECK(names(find({"b.txt", "*.txt", "../" + folder.path().filename().string() + "/a.txt"}), folder.path()) ==
        Names{"b.txt", "a.txt"});
  CHECK(names(find({"deep/e.json", "notes.cpp", "de*"}), folder.path()) ==
        Names{"deep/e.json", "notes.cpp", "deep/d.md", "deep/er/c.jsonl.gz", "deep/f.json.zst"});
  const auto format = [&](const char* name) { return std::string(find({name})[0].format->name); };
  CHECK(format("deep/e.json") == "json_lines");
  CHECK(format("deep/er/c.jsonl.gz") == "json_lines");
  CHECK(format("deep/d.md") == "plain");
  CHECK(format("notes.cpp") == "plain");
  CHECK(find({"notes.cpp"})[0].bytes == 1);

  CHECK(contains(error_of([&] { find({"none.txt"}); }), "none.txt: no such file"));
  CHECK(contains(error_of([&] { find({"*.parquet"}); }), "*.parquet: no file matches"));
  std::filesystem::create_directory(folder / "empty");
  CHECK(contains(error_of([&] { find({"empty"}); }), "no text file in there"));
}

TEST_CASE("a plain file is one document; a long one comes in pieces that make up the whole") {
  const TestFolder folder;
  CHECK(documents(write_file(folder / "a.txt", "one\n\ntwo")) == std::vector<std::string>{"one\n\ntwo"});
  CHECK(documents(write_file(folder / "bom.txt", "\xef\xbb\xbfone")) == std::vector<std::string>{"one"});
  CHECK(documents(write_file(folder / "empty.txt", "")).empty());
  CHECK(contains(error_of([&] { documents(write_file(folder / "utf16.txt", std::string("\xff\xfeo\0", 4))); }),
                 "UTF-16"));
  const std::string text = english(5'300'000);
  for (const char* name : {"long.txt", "long.txt.gz"}) {
    const auto path = write_file(folder / name, std::string(name).ends_with("gz") ? gzip(text) : text);
    const std::vector<std::string> pieces = documents(path);
    CHECK(pieces.size() == 21);
    std::string whole;
    for (size_t i = 0; i < pieces.size(); ++i) {
      CHECK(pieces[i].size() <= kPieceBytes);
      CHECK((i + 1 == pieces.size() || pieces[i].back() == '\n'));
      whole += pieces[i];
    }
    CHECK((whole == text));
  }
}

TEST_CASE("a separator line divides plain text into documents") {
  const TestFolder folder;
  using Documents = std::vector<std::string>;
  TextOptions options;
  options.separator_line = "<|endoftext|>";
  const auto stories = write_file(folder / "stories.txt",
                                  "<|endoftext|>\n\nOnce.\n\nThe end.\n<|endoftext|>\r\n<|endoftext|> \nTwice\n"
                                  "not <|endoftext|> here\n\n<|endoftext|>\n\n\nLast");
  CHECK(documents(stories, options) == Documents{"Once.\n\nThe end.", "Twice\nnot <|endoftext|> here", "Last"});
  options.separator_line = "";
  CHECK(documents(write_file(folder / "p.txt", "\na\nb\n\n \t\n\n  c\n\nd\n\n"), options) ==
        Documents{"a\nb", "  c", "d"});

  // Documents longer than a piece, lines longer than the buffer.
  const std::string line(700'000, 'x'), text = english(3'000'000) + "\n";
  options.separator_line = "---";
  const auto path = write_file(folder / "long.txt", line + "\n---\n" + text + "---\n" + line + "---\n" + "---");
  const Documents whole = joined_documents(path, options);
  REQUIRE(whole.size() == 3);
  CHECK((whole[0] == line));
  CHECK((whole[1] == text.substr(0, text.find_last_not_of('\n') + 1)));
  CHECK((whole[2] == line + "---"));
}

TEST_CASE("JSON lines: one document a line, found faults named with file and line") {
  const TestFolder folder;
  const std::string lines =
      "{\"text\": \"caf\\u00e9\\n\", \"meta\": {\"text\": \"no\"}}\n\n{\"id\": 3, \"text\": \"\"}\r\n"
      "{\"list\": [\"no\"], \"text\": \"last\"}";
  const std::vector<std::string> expected = {"caf\xc3\xa9\n", "", "last"};
  CHECK(documents(write_file(folder / "a.jsonl", lines)) == expected);
  CHECK(documents(write_file(folder / "a.jsonl.gz", gzip(lines))) == expected);
  CHECK(documents(write_file(folder / "a.ndjson.zst", zstd(lines))) == expected);
  TextOptions content;
  content.text_field = "content";
  CHECK(documents(write_file(folder / "c.jsonl", "{\"content\":\"x\"}"), content) == std::vector<std::string>{"x"});

  const auto message = [&](const std::string& bad) {
    const auto path = write_file(folder / "bad.jsonl", "{\"text\": \"good\"}\n\n" + bad + "\n");
    return error_of([&] { documents(path); });
  };
  CHECK(contains(message("{\"text\": \"cut"), (folder / "bad.jsonl").string() + ", line 3: malformed JSON"));
  CHECK(contains(message("{\"text\": \"a\"} rest"), "line 3: malformed JSON"));
  CHECK(contains(message("{\"text\": \"\xff\"}"), "line 3: malformed JSON"));
  CHECK(contains(message("{\"id\": 1, \"body\": \"x\"}"), "line 3: no member \"text\" (it has: id, body)"));
  CHECK(contains(message("{\"text\": 3}"), "\"text\" is not a string"));
  CHECK(contains(message("{\"text\": [\"x\"]}"), "\"text\" is not a string"));
  CHECK(contains(message("{\"text\": {\"a\": \"x\"}}"), "\"text\" is not a string"));
  CHECK(contains(message("[\"text\", \"x\"]"), "not a JSON object"));
  CHECK(message("{\"text\": \"" + std::string(100'000, 'y')).size() < 400);
}

TEST_CASE("long texts are cut where a tokenizer would cut them too") {
  CHECK(find_cut("one\ntwo\nthree", 9) == 8);    // after a line end
  CHECK(find_cut("one\ntwo\n  three", 9) == 4);  // not before an indented line
  CHECK(find_cut("one two\n\nthree", 9) == 7);   // before a run of line ends, not inside
  CHECK(find_cut("one\r\ntwo three", 9) == 3);
  CHECK(find_cut("one two three", 9) == 7);           // before a space
  CHECK(find_cut("ab\xc3\xa9\xe2\x82\xac", 3) == 2);  // between characters
  CHECK(find_cut("ab\xc3\xa9\xe2\x82\xac", 6) == 4);
  CHECK(find_cut("abcdefgh", 5) == 5);
  CHECK(find_cut("\x80\x80\x80\x80\x80\x80", 1) == 1);
}

TEST_CASE("the validation share is exact, drawn from the whole corpus, and follows the seed") {
  for (const double fraction : {0.001, 0.01, 0.3, 0.5, 0.9}) {
    const DocumentSplit split(fraction, 1), other(fraction, 2);
    int64_t chosen = 0, differ = 0, first_half = 0;
    for (uint64_t d = 0; d < 20'000; ++d) {
      chosen += split.validation(d) ? 1 : 0;
      first_half += d < 10'000 && split.validation(d) ? 1 : 0;
      differ += split.validation(d) != other.validation(d) ? 1 : 0;
    }
    CHECK(std::abs(static_cast<double>(chosen) - 20'000 * fraction) <= 1.0);  // at most a part of one stratum
    CHECK(std::abs(static_cast<double>(first_half) - 10'000 * fraction) <= 1.0);
    CHECK(differ > 0);
  }
  const DocumentSplit none(0, 1);
  for (uint64_t d = 0; d < 100; ++d) CHECK_FALSE(none.validation(d));
  CHECK_THROWS_AS(DocumentSplit(1.0, 1), Error);
  CHECK_THROWS_AS(DocumentSplit(-0.1, 1), Error);
}

}  // namespace
}  // namespace llmz::data
