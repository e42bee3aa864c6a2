#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "llmz/model/batch.h"
#include "llmz/model/config.h"
#include "llmz/nn/block.h"
#include "llmz/nn/config.h"
#include "llmz/nn/embedding.h"
#include "llmz/nn/head.h"

namespace llmz::model {

/// How a model is built, beside its shape.
struct BuildOptions {
  nn::ActivationsConfig activations = {};
  codec::GradientConfig weight_gradient = {};
  nn::Precision precision = {};
  int64_t loss_chunk = 1024;  ///< tokens whose logits exist at once
  bool gradients = true;      ///< false: evaluation and generation only
  bool probes = false;        ///< passes may measure the errors of codes and weight gradients
  uint64_t seed = 1;          ///< of projectors and stochastic rounding
  int64_t row_multiple = 1;   ///< see nn::BuildContext
  subspace::StreamsBy streams = subspace::StreamsBy::name;
};

/// Embedding, residual blocks, and a head with the last norm. Which layers, in which order and under which
/// names is each architecture's own file (llama.cpp, gpt2.cpp). Built twice: against a recording Memory, then against
/// the one that was planned.
class Model {
 public:
  struct Parts {
    std::unique_ptr<nn::Embedding> embedding;
    std::vector<std::unique_ptr<nn::Block>> blocks;
    std::unique_ptr<nn::Head> head;
    std::vector<Parameter*> parameters;  ///< in the order of the model; owned by the layers
    std::vector<size_t> begins;          ///< the first parameter of embedding, each block, head; then their number
    std::unique_ptr<subspace::Clock> clock;
    std::vector<codec::Codec*> codecs;  ///< likewise
    std::vector<codec::Probe> gradient_probes;
  };
  Model(ModelConfig config, nn::Precision precision, Parts parts);

  const ModelConfig& config() const { return config_; }
  const std::vector<Parameter*>& parameters() const { return parts_.parameters; }
  nn::Precision precision() const { return precision_; }
  int64_t parameter_count() const;
  /// Parameters that meet every token in a matrix product: all but lookup tables and vectors (a tied table counts once,
  /// as the head).
  int64_t matmul_parameter_count() const;

  /// Initial weights from `seed`: the same on every machine, whatever the number of threads.
  void initialise(Exec& exec, uint64_t seed);

  /// Start of optimizer step `step`, which counts from 1 as everywhere, or of one as it would be with these refresh
  /// periods due: projectors follow. Their clock tells the steps before it.
  void begin_step(int64_t step) { begin_step(step, periods_due(step - 1)); }
  void begin_step(int64_t step, std::vector<int64_t> due);
  /// Refresh periods of all codecs, each once, ascending.
  std::vector<int64_t> periods() const;
  /// Whether this step begins with a forward pass over which codecs look at their tensors.
  bool refresh_due() const;
  /// That pass: x [T] tokens as for `forward_backward`.
  void refresh(Exec& exec, Tensor tokens);
  subspace::Clock& clock() { return *parts_.clock; }
  /// Whether some codec takes new random numbers in each pass: none may then be recorded and played again.
  bool draws_each_pass() const;

  /// What the codecs keep for the whole run, for checkpoints.
  std::vector<subspace::State> codec_states() const;
  std::vector<subspace::Spectrum> spectra() const;
  std::vector<codec::Probe> probes() const;

  /// Told of the parameters [first, last) whose gradients this pass will not touch any more.
  using GradientsReady = std::function<void(size_t first, size_t last)>;
  /// One micro-batch of training. losses, one a target ([B·S] for next tokens), in nats. Gradients of
  /// grad_scale·Σ losses are added to the parameters' gradients.
  void forward_backward(Exec& exec, Tensor losses, const Batch& batch, float grad_scale,
                        const GradientsReady& ready = {});
  /// losses only.
  void evaluate(Exec& exec, Tensor losses, const Batch& batch);
  /// What the head gives for every token [B·S, outputs], or for the last of each sequence [B, outputs]: logits.
  void outputs(Exec& exec, Tensor out, const Batch& batch, nn::Head::Rows rows = nn::Head::Rows::all);
  /// logits [B, vocab] of the last of tokens [B,S], which stand at `position`; `caches` (one a block) hold what came
  /// before and take in what comes.
  void generate(Exec& exec, Tensor logits, Tensor tokens, int64_t position, std::vector<nn::KvCache>& caches);

 private:
  std::vector<int64_t> periods_due(int64_t steps_done) const;
  std::vector<subspace::Refresh*> refreshes() const;
  Buffer forward(Exec& exec, const nn::Pass& pass, Tensor tokens, std::vector<nn::KvCache>* caches);

  ModelConfig config_;
  nn::Precision precision_;
  Parts parts_;
};

/// Builds the architecture that config.architecture names. Throws Error for an unknown one or an impossible shape.
std::unique_ptr<Model> make_model(const ModelConfig& config, const BuildOptions& options, Memory& memory);

/// Whether its MLP has a gate beside the projection up.
bool has_gate(const ModelConfig& config);

/// Every registered architecture.
std::vector<std::string> architectures();

}  // namespace llmz::model
