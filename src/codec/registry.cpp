#include <algorithm>

#include "llmz/codec/settings.h"
#include "llmz/core/error.h"

namespace llmz::codec {

CodecRow store_row();
CodecRow recompute_row();
CodecRow sketch_row();
CodecRow quant_row();

const std::vector<CodecRow>& codec_rows() {
  const auto shared = [](const RoleFacts& role) { return role.shares_input; };
  static const std::vector<CodecRow> rows = {{.name = "shared",
                                              .meaning = "nothing of its own: the code of a linear layer's input",
                                              .serves = shared,
                                              .keeps = false},
                                             store_row(),
                                             recompute_row(),
                                             sketch_row(),
                                             quant_row()};
  return rows;
}

bool serves_all(const RoleFacts&) { return true; }
bool serves_rebuilt(const RoleFacts& role) { return role.rebuilds; }

const CodecRow& codec_row(const std::string& name) {
  const auto& rows = codec_rows();
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const CodecRow& each) { return each.name == name; });
  check(row != rows.end(), "codec '{}' is unknown; known: {}", name, fmt::join(codec_names(), ", "));
  return *row;
}

std::unique_ptr<Codec> make_codec(const CodecOptions& options, Memory& memory) {
  const CodecRow& row = codec_row(options.config.codec);
  check(row.make != nullptr, "codec '{}' is made by no one; known: {}", row.name, fmt::join(codec_names(), ", "));
  return probed(row.make(options, memory), options, memory);
}

std::vector<std::string> codec_names() {
  std::vector<std::string> names;
  for (const CodecRow& row : codec_rows()) {
    if (row.make != nullptr) names.push_back(row.name);
  }
  return names;
}

void validate(const CodecConfig& config, const std::string& where, int64_t width) {
  const auto names = codec_names();
  check(std::find(names.begin(), names.end(), config.codec) != names.end(),
        "{}.codec = \"{}\" is not known; allowed: {}", where, config.codec, fmt::join(names, ", "));
  const CodecRow& row = codec_row(config.codec);
  if (row.check != nullptr) row.check(config, where, width);
}

}  // namespace llmz::codec
