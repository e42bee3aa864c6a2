#include "llmz/data/text_source.h"

#include <glob.h>

#include <algorithm>
#include <iterator>
#include <set>

#include "llmz/core/error.h"
#include "src/data/block_reader.h"
#include "src/data/json_text.h"

namespace llmz::data {
namespace fs = std::filesystem;
namespace {

/// A format by the extension of its files. From a folder only those marked so are taken: a .json there is more often a
/// configuration than text, unless it is compressed.
struct Format {
  std::string_view extension;
  TextKind kind;
  bool from_folder;
  bool from_folder_compressed;
};
constexpr Format kFormats[] = {
    {".txt", TextKind::plain, true, true},         {".text", TextKind::plain, true, true},
    {".md", TextKind::plain, true, true},          {".jsonl", TextKind::json_lines, true, true},
    {".ndjson", TextKind::json_lines, true, true}, {".json", TextKind::json_lines, false, true},
};

/// What a folder is searched for, for its error.
std::string folder_extensions() {
  std::string plain, compressed;
  for (const Format& f : kFormats) {
    if (f.from_folder) plain += fmt::format("{} ", f.extension);
    if (!f.from_folder && f.from_folder_compressed) compressed += fmt::format(", {0}.gz and {0}.zst", f.extension);
  }
  return plain + "(each also with .gz or .zst after it)" + compressed;
}

struct NamedFormat {
  const Format* format = nullptr;  // none for an extension that is not known
  bool compressed = false;
};

NamedFormat format_of(const fs::path& path) {
  const std::string last = path.extension().string();
  const bool compressed = last == ".gz" || last == ".zst";
  const std::string extension = compressed ? path.stem().extension().string() : last;
  const auto* const found = std::ranges::find(kFormats, extension, &Format::extension);
  return {found == std::end(kFormats) ? nullptr : found, compressed};
}

/// A file that was named itself is text whatever its extension.
TextKind kind_of(const fs::path& path) {
  const Format* format = format_of(path).format;
  return format ? format->kind : TextKind::plain;
}

bool wanted_in_folder(const fs::path& path) {
  if (path.filename().string().starts_with('.')) return false;
  const auto [format, compressed] = format_of(path);
  return format && (compressed ? format->from_folder_compressed : format->from_folder);
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
  check(!files.empty(), "{}: no text file in there; files taken from folders are {}", input, folder_extensions());
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
