#include "llmz/data/text_source.h"

#include <glob.h>

#include <algorithm>
#include <set>

#include "llmz/core/error.h"
#include "src/data/block_reader.h"
#include "src/data/json_text.h"

namespace llmz::data {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kFolderExtensions =
    ".txt .text .md .jsonl .ndjson (each also with .gz or .zst after it), .json.gz and .json.zst";

struct NameParts {
  std::string extension;  // without compression: ".jsonl" of a.jsonl.gz
  bool compressed = false;
};

NameParts name_parts(const fs::path& path) {
  const std::string last = path.extension().string();
  if (last != ".gz" && last != ".zst") return {last, false};
  return {path.stem().extension().string(), true};
}

TextKind kind_of(const fs::path& path) {
  const std::string extension = name_parts(path).extension;
  const bool json = extension == ".jsonl" || extension == ".ndjson" || extension == ".json";
  return json ? TextKind::json_lines : TextKind::plain;
}

bool wanted_in_folder(const fs::path& path) {
  if (path.filename().string().starts_with('.')) return false;
  const auto [extension, compressed] = name_parts(path);
  return extension == ".txt" || extension == ".text" || extension == ".md" || extension == ".jsonl" ||
         extension == ".ndjson" || (extension == ".json" && compressed);
}

std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> found;
  try {
    for (auto at = fs::recursive_directory_iterator(folder); at != fs::recursive_directory_iterator(); ++at) {
      const bool hidden = at->path().filename().string().starts_with('.');
      if (hidden && at->is_directory()) at.disable_recursion_pending();
      if (at->is_regular_file() && wanted_in_folder(at->path())) found.push_back(at->path());
    }
  } catch (const fs::filesystem_error& error) {
    fail("cannot look through {}: {}", folder.string(), error.code().message());
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<fs::path> matches(const std::string& pattern) {
  glob_t found{};
  const int result = ::glob(pattern.c_str(), 0, nullptr, &found);
  std::vector<fs::path> paths;
  if (result == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  check(result == 0 || result == GLOB_NOMATCH, "{}: the folders of this pattern cannot be read", pattern);
  return paths;
}

/// Files that one input names, not yet freed of doubles.
std::vector<fs::path> resolve(const std::string& input) {
  std::error_code ignored;
  std::vector<fs::path> named = {input};
  if (!fs::exists(input, ignored)) {
    check(input.find_first_of("*?[") != std::string::npos, "{}: no such file or folder", input);
    named = matches(input);
    check(!named.empty(), "{}: no file matches this pattern", input);
  }
  std::vector<fs::path> files;
  for (const fs::path& path : named) {
    if (!fs::is_directory(path, ignored)) {
      files.push_back(path);
      continue;
    }
    const std::vector<fs::path> inside = files_below(path);
    files.insert(files.end(), inside.begin(), inside.end());
  }
  check(!files.empty(), "{}: no text file in there; files taken from folders are {}", input, kFolderExtensions);
  return files;
}

}  // namespace

std::vector<TextFile> find_text_files(std::span<const std::string> inputs) {
  std::vector<TextFile> files;
  std::set<fs::path> seen;
  for (const std::string& input : inputs) {
    for (const fs::path& path : resolve(input)) {
      std::error_code failed;
      if (!seen.insert(fs::canonical(path, failed)).second) continue;
      const auto bytes = fs::is_regular_file(path, failed) ? fs::file_size(path, failed) : 0;
      files.push_back({path, kind_of(path), bytes});
    }
  }
  return files;
}

struct TextReader::State {
  BlockReader reader;
  TextOptions options;
  std::optional<TextBlock> block;
  size_t next_piece = 0;
};

TextReader::TextReader(std::vector<TextFile> files, TextOptions options)
    : TextReader(std::move(files), std::move(options), SplitOptions{}) {}
TextReader::TextReader(std::vector<TextFile> files, TextOptions options, const SplitOptions& split)
    : state_(new State{BlockReader(std::move(files), options, split), std::move(options), {}, 0}) {}
TextReader::TextReader(TextReader&&) noexcept = default;
TextReader::~TextReader() = default;

bool TextReader::next(std::string& text) {
  State& s = *state_;
  while (true) {
    while (!s.block || s.next_piece == s.block->pieces.size()) {
      s.block = s.reader.next();
      s.next_piece = 0;
      if (!s.block) return false;
    }
    const TextPiece& piece = s.block->pieces[s.next_piece++];
    if (piece.validation) continue;
    text = piece_text(s.reader.files()[s.block->file], *s.block, piece, s.options.text_field);
    return true;
  }
}

}  // namespace llmz::data
