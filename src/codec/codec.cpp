#include "llmz/codec/codec.h"

namespace llmz::codec {
namespace {

struct Row {
  const char* name;
  std::unique_ptr<Codec> (*make)(const CodecOptions&, Memory&);
};

constexpr Row kRegistry[] = {
    {"store", make_store}, {"recompute", make_recompute}, {"sketch", make_sketch}, {"quant", make_quant}};

}  // namespace

void Codec::low_rank_grad(Exec&, Tensor, Tensor, Tensor) { fail("this codec makes no low-rank gradients"); }

std::unique_ptr<Codec> make_codec(const CodecOptions& options, Memory& memory) {
  for (const Row& row : kRegistry) {
    if (options.config.codec == row.name) return probed(row.make(options, memory), options, memory);
  }
  fail("codec '{}' is unknown; known: {}", options.config.codec, fmt::join(codec_names(), ", "));
}

std::vector<std::string> codec_names() {
  std::vector<std::string> names;
  for (const Row& row : kRegistry) names.emplace_back(row.name);
  return names;
}

}  // namespace llmz::codec
