#include "llmz/core/error.h"
#include "src/data/json_text.h"
#include "src/data/source.h"
#include "src/data/text_lines.h"

namespace llmz::data {
namespace {

constexpr size_t kLongestLine = size_t{256} << 20;

/// Each line is a document, held whole.
class JsonLinesReader final : public SourceReader {
 public:
  explicit JsonLinesReader(SourceContext context) : context_(std::move(context)), lines_(context_.file.path) {}

  bool read(TextBlock& block) override {
    std::string_view line;
    while (block.bytes.size() < kPieceBytes) {
      if (!lines_.read_line(line, kLongestLine)) return false;
      ++line_number_;
      check(line.size() < kLongestLine, "{}, line {}: longer than {} MB; is this JSON with one object a line?",
            context_.file.path.string(), line_number_, kLongestLine >> 20);
      if (is_blank(line)) continue;
      TextPiece piece;
      piece.begin = block.bytes.size();
      piece.length = line.size();
      piece.validation = context_.next_is_validation();
      piece.line = line_number_;
      block.bytes += line;
      block.pieces.push_back(piece);
    }
    return true;
  }
  uint64_t consumed() const override { return lines_.consumed(); }

 private:
  SourceContext context_;
  TextLines lines_;
  uint64_t line_number_ = 0;
};

std::unique_ptr<SourceReader> open_json_lines(SourceContext context) {
  return std::make_unique<JsonLinesReader>(std::move(context));
}

std::string text_of_line(std::string_view raw, const TextOptions& options) {
  return json_text(raw, options.text_field);
}

config::Fields<TextOptions> json_lines_fields() {
  return config::Fields<TextOptions>().key("text_field", &TextOptions::text_field,
                                           "Member of each JSON line that holds its text");
}

// A .json in a folder is more often a configuration than text, unless it is compressed.
constexpr SourceRow::Ending kJsonEndings[] = {{".jsonl"}, {".ndjson"}, {".json", false, true}};

}  // namespace

extern const SourceRow kJsonLines;
const SourceRow kJsonLines = {.name = "json_lines",
                              .title = "JSON lines",
                              .endings = kJsonEndings,
                              .open = open_json_lines,
                              .text = text_of_line,
                              .fields = json_lines_fields};

}  // namespace llmz::data
