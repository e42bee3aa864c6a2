#include "llmz/codec/codec.h"

#include "llmz/ops/matmul.h"

namespace llmz::codec {
namespace {

struct Row {
  const char* name;
  std::unique_ptr<Codec> (*make)();
};

constexpr Row kRegistry[] = {{"store", make_store}, {"recompute", make_recompute}};

}  // namespace

void Codec::weight_grad(Exec& exec, Tensor dy, WeightGrad& grad) {
  const Buffer x = decode(exec);
  ops::matmul(exec, {.c = grad.dense, .a = dy, .b = x.tensor(), .transpose_a = true, .accumulate = true});
}

std::unique_ptr<Codec> make_codec(const CodecConfig& config) {
  for (const Row& row : kRegistry) {
    if (config.codec == row.name) return row.make();
  }
  fail("codec '{}' is unknown; known: {}", config.codec, fmt::join(codec_names(), ", "));
}

std::vector<std::string> codec_names() {
  std::vector<std::string> names;
  for (const Row& row : kRegistry) names.emplace_back(row.name);
  return names;
}

}  // namespace llmz::codec
