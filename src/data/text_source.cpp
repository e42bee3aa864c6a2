#include "llmz/data/text_source.h"

#include <glob.h>

#include <algorithm>
#include <iterator>
#include <set>

#include "llmz/core/error.h"
#include "src/data/block_reader.h"
#include "src/data/byte_stream.h"
#include "src/data/source.h"

namespace llmz::data {

extern const SourceRow kPlain, kJsonLines;

namespace fs = std::filesystem;
namespace {

constexpr const SourceRow* kSources[] = {&kPlain, &kJsonLines};

/// ".gz or .zst"
std::string compressed_endings() {
  std::vector<std::string> all;
  for (const Compression* each : compressions()) all.emplace_back(each->extension);
  return fmt::format("{}", fmt::join(all, " or "));
}

/// What a folder is searched for, for its error.
std::string folder_extensions() {
  std::string plain, compressed;
  for (const SourceRow* row : source_rows()) {
    for (const SourceRow::Ending& ending : row->endings) {
      if (ending.in_folders) plain += fmt::format("{} ", ending.extension);
      if (ending.in_folders || !ending.compressed_in_folders) continue;
      for (const Compression* each : compressions()) {
        compressed += fmt::format(", {}{}", ending.extension, each->extension);
      }
    }
  }
  return fmt::format("{}(each also with {} after it){}", plain, compressed_endings(), compressed);
}

/// What a file's name says of it.
struct NameFacts {
  const SourceRow* row = nullptr;  // none for an ending that is not known
  bool in_folders = false;         // taken from a folder
};

NameFacts facts_of(const fs::path& path) {
  const bool compressed = compression_named(path) != nullptr;
  const std::string extension = (compressed ? path.stem() : path).extension().string();
  for (const SourceRow* row : source_rows()) {
    const auto found = std::find_if(row->endings.begin(), row->endings.end(),
                                    [&](const auto& ending) { return ending.extension == extension; });
    if (found != row->endings.end()) return {row, compressed ? found->compressed_in_folders : found->in_folders};
  }
  return {};
}

bool wanted_in_folder(const fs::path& path) {
  return !path.filename().string().starts_with('.') && facts_of(path).in_folders;
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

std::span<const SourceRow* const> source_rows() { return kSources; }

std::string text_choices() {
  std::vector<std::string> titles;
  for (const SourceRow* row : kSources) titles.emplace_back(row->title);
  return fmt::format("{}, as they are or in {}", fmt::join(titles, " or "), compressed_endings());
}

config::Fields<TextOptions> text_fields() {
  config::Fields<TextOptions> fields;
  for (const SourceRow* row : kSources) {
    if (row->fields != nullptr) fields.merge(row->fields());
  }
  return fields;
}

std::vector<TextFile> find_text_files(std::span<const std::string> inputs) {
  std::vector<TextFile> files;
  std::set<fs::path> seen;
  for (const std::string& input : inputs) {
    for (const fs::path& path : resolve(input)) {
      std::error_code failed;
      if (!seen.insert(fs::canonical(path, failed)).second) continue;
      const auto bytes = fs::is_regular_file(path, failed) ? fs::file_size(path, failed) : 0;
      const SourceRow* const row = facts_of(path).row;
      files.push_back({path, row != nullptr ? row : source_rows().front(), bytes});
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
    text = piece_text(s.reader.files()[s.block->file], *s.block, piece, s.options);
    return true;
  }
}

}  // namespace llmz::data
