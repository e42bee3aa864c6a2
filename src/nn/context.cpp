#include "llmz/nn/context.h"

#include "llmz/codec/settings.h"

namespace llmz::nn {

void BuildContext::add(Parameter& p, Shape shape, const Projector* projector) {
  const int64_t rows = shape[0];
  p.padded_rows = (rows + row_multiple - 1) / row_multiple * row_multiple;
  const auto keep = [&](const std::string& name, Category category, Shape padded, DType dtype) {
    padded[0] = p.padded_rows;
    return memory.persistent(name, category, padded, dtype).slice(0, 0, rows);
  };
  p.weight = keep(p.name, Category::weights, shape, precision.weight);
  p.stream = weight_streams.add(p.name).id;
  parameters.push_back(&p);
  if (!gradients) return;
  const Shape grad = projector != nullptr ? Shape{rows, projector->rank()} : shape;
  const Tensor tensor = keep(p.name + ".grad", Category::gradients, grad, precision.accumulator());
  if (projector != nullptr) {
    p.grad.low = {.factor = tensor, .projector = projector};
  } else {
    p.grad.dense = tensor;
  }
}

std::unique_ptr<codec::Codec> BuildContext::make_codec(const codec::CodecConfig& config, const std::string& name,
                                                       std::string_view role, std::vector<int64_t> widths,
                                                       bool linear_input, bool source_exact) {
  codec::CodecOptions options{.config = config,
                              .name = name,
                              .role = role,
                              .widths = std::move(widths),
                              .dtype = precision.activation,
                              .clock = clock,
                              .source_exact = source_exact,
                              .probes = probes};
  options.stream = code_streams.add(name, options.widths.size());
  if (!gradients) options.config = {};  // nothing will be kept
  const bool projects = linear_input && gradients && weight_gradient.form == codec::GradientForm::low_rank &&
                        !codec::codec_row(config.codec).is_sketch;
  auto codec =
      projects ? codec::make_projected(options, weight_gradient.projector, memory) : codec::make_codec(options, memory);
  codecs.push_back(codec.get());
  return codec;
}

}  // namespace llmz::nn
