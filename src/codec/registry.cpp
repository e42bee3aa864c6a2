#include <algorithm>

#include "llmz/codec/settings.h"
#include "llmz/core/error.h"

namespace llmz::codec {
namespace {

bool any(const RoleFacts&) { return true; }
bool rebuilt(const RoleFacts& role) { return role.rebuilds; }
bool shared(const RoleFacts& role) { return role.shares_input; }

config::Fields<CodecConfig> with_projector() {
  return config::Fields<CodecConfig>().object("", &CodecConfig::projector, subspace::projector_fields());
}
config::Fields<CodecConfig> with_quant() {
  return config::Fields<CodecConfig>().object("", &CodecConfig::quant, quant_fields());
}

void check_sketch(const CodecConfig& config, const std::string& where, int64_t width) {
  validate(config.projector, where, width);
  validate(config.quant, where, /*needed=*/false);
}
void check_quant(const CodecConfig& config, const std::string& where, int64_t) {
  validate(config.quant, where, /*needed=*/true);
}

const CodecRow* find(const std::string& name) {
  const auto& rows = codec_rows();
  const auto made = [&](const CodecRow& row) { return row.name == name && row.make != nullptr; };
  const auto row = std::find_if(rows.begin(), rows.end(), made);
  return row == rows.end() ? nullptr : &*row;
}

}  // namespace

const std::vector<CodecRow>& codec_rows() {
  static const std::vector<CodecRow> rows = {
      {"shared", "nothing of its own: the code of a linear layer's input", shared, {}, nullptr, nullptr},
      {"store", "as it is", any, {}, nullptr, make_store},
      {"recompute", "nothing; made again in backward", rebuilt, {}, nullptr, make_recompute},
      {"sketch", "its product with a projector", any, with_projector().merge(with_quant()), check_sketch, make_sketch},
      {"quant", "in 8 or 4 bits", any, with_quant(), check_quant, make_quant},
  };
  return rows;
}

std::unique_ptr<Codec> make_codec(const CodecOptions& options, Memory& memory) {
  const CodecRow* row = find(options.config.codec);
  check(row != nullptr, "codec '{}' is unknown; known: {}", options.config.codec, fmt::join(codec_names(), ", "));
  return probed(row->make(options, memory), options, memory);
}

std::vector<std::string> codec_names() {
  std::vector<std::string> names;
  for (const CodecRow& row : codec_rows()) {
    if (row.make != nullptr) names.push_back(row.name);
  }
  return names;
}

void validate(const CodecConfig& config, const std::string& where, int64_t width) {
  const CodecRow* row = find(config.codec);
  check(row != nullptr, "{}.codec = \"{}\" is not known; allowed: {}", where, config.codec,
        fmt::join(codec_names(), ", "));
  if (row->check != nullptr) row->check(config, where, width);
}

}  // namespace llmz::codec
