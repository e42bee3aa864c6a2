#pragma once

#include <memory>
#include <vector>

#include "llmz/codec/codec.h"
#include "llmz/core/exec.h"
#include "llmz/core/parameter.h"
#include "llmz/nn/config.h"
#include "llmz/nn/roles.h"

namespace llmz::nn {

/// Element types of a model. Statistics (log-sum-exp, rstd, losses) are f32, or f64 in a model that is f64 throughout.
struct Precision {
  DType weight = DType::f32;
  DType activation = DType::f32;
  DType gradient = DType::f32;  ///< of weight gradients, which are summed over micro-batches; f64 in an f64 model
  DType accumulator() const { return activation == DType::f64 ? DType::f64 : gradient; }
  DType statistic() const { return activation == DType::f64 ? DType::f64 : DType::f32; }
};

/// What layers are built with. Each layer owns its parameters and codecs and announces them here.
struct BuildContext {
  Memory& memory;
  Precision precision;
  bool gradients = true;      ///< false: weights only, for evaluation and generation
  int64_t row_multiple = 1;   ///< parameters get room for a multiple of it, of rows: each of so many ranks owns a part
  int64_t loss_chunk = 1024;  ///< tokens whose logits exist at once
  bool probes = false;        ///< codecs and weight gradients can measure their errors
  ActivationsConfig activations = {};
  codec::GradientConfig weight_gradient = {};
  const subspace::Clock* clock = nullptr;

  std::vector<Parameter*> parameters = {};
  std::vector<codec::Codec*> codecs = {};
  std::vector<codec::Probe> gradient_probes = {};
  subspace::StreamTable weight_streams, code_streams;

  /// Allocates weight (and gradient) of `p`, whose other fields are set, and lists it. With a projector the gradient is
  /// low-rank.
  void add(Parameter& p, Shape shape, const Projector* projector = nullptr);
  /// The codec of a tensor of this role (roles.h) that lies in `widths` side by side. A linear layer's input gets
  /// low-rank gradients as `weight_gradient` says. `source_exact`: see CodecOptions.
  std::unique_ptr<codec::Codec> make_codec(const codec::CodecConfig& config, const std::string& name,
                                           std::string_view role, std::vector<int64_t> widths, bool linear_input,
                                           bool source_exact = true);
};

/// One call of a layer: `batch` sequences of `sequence` tokens, rows of x are tokens in that order.
struct Pass {
  int64_t batch = 1, sequence = 1;
  int64_t position = 0;  ///< position of each sequence's first token
  bool keep = false;     ///< a backward pass will follow
  bool observe = false;  ///< a refresh: codecs look at their tensors; no backward follows
  Tensor lengths = {};   ///< [batch] i32: the tokens of each sequence that are no padding; absent = all
  int64_t tokens() const { return batch * sequence; }

  /// Where a tensor that `codec` may keep is booked.
  Category category(const codec::Codec& codec) const {
    return keep ? codec.facts().input_category : Category::activations;
  }
};

}  // namespace llmz::nn
