#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "llmz/model/model.h"
#include "llmz/ops/elementwise.h"

namespace llmz::test {

/// A tiny model with its batch: planned, allocated, initialised, filled with random tokens.
class ModelHarness {
 public:
  using Make =
      std::function<std::unique_ptr<model::Model>(const model::ModelConfig&, const model::BuildOptions&, Memory&)>;
  /// `make`: of an architecture that the registry does not know.
  ModelHarness(model::ModelConfig config, model::BuildOptions options, int64_t batch, int64_t sequence,
               Make make = model::make_model)
      : config_(std::move(config)),
        options_(std::move(options)),
        batch_(batch),
        sequence_(sequence),
        make_(std::move(make)) {
    Memory recorder;
    {
      Exec exec(recorder);
      const Body body(*this, recorder);
      body.model->begin_step(1);
      if (body.model->refresh_due()) body.refresh(exec);
      body.train(exec);
      body.evaluate(exec);
      body.outputs(exec);
    }
    memory_ = std::make_unique<Memory>(recorder.finish());
    exec_ = std::make_unique<Exec>(*memory_);
    body_ = std::make_unique<Body>(*this, *memory_);
    body_->model->initialise(*exec_, 7);
    body_->model->begin_step(1);
    const RandomStream random(3, Purpose::test);
    for (int64_t i = 0; i < batch * sequence; ++i) {
      body_->tokens.as<int32_t>()[i] = static_cast<int32_t>(random.below(2 * i, config_.vocab_size));
      body_->targets.as<int32_t>()[i] = static_cast<int32_t>(random.below(2 * i + 1, config_.vocab_size));
    }
    std::fill_n(lengths(), batch, static_cast<int32_t>(sequence));
  }

  model::Model& model() { return *body_->model; }
  Exec& exec() { return *exec_; }
  Memory& memory() { return *memory_; }
  int32_t* tokens() { return body_->tokens.as<int32_t>(); }
  int32_t* targets() { return body_->targets.as<int32_t>(); }
  /// Of each sequence what is no padding: at first all.
  int32_t* lengths() { return body_->lengths.as<int32_t>(); }
  /// Logits of all tokens [B·S, vocab], and of each sequence's last [B, vocab].
  std::pair<Tensor, Tensor> outputs() {
    body_->outputs(*exec_);
    return {body_->logits, body_->last};
  }

  /// Mean loss; gradients of it replace the parameters' gradients.
  double train() {
    for (Parameter* p : model().parameters()) ops::fill(*exec_, p->grad.accumulator(), 0.0f);
    return accumulate();
  }
  /// Mean loss; gradients of it are added to the parameters' gradients.
  double accumulate() {
    body_->train(*exec_);
    return mean_loss();
  }
  /// Projectors that are made from what they project: from this batch.
  void refresh() {
    if (model().refresh_due()) body_->refresh(*exec_);
  }
  double evaluate() {
    body_->evaluate(*exec_);
    return mean_loss();
  }

 private:
  struct Body {
    std::unique_ptr<model::Model> model;
    Tensor tokens, targets, lengths, losses, logits, last;
    float scale;
    Body(const ModelHarness& h, Memory& memory) : scale(1.0f / static_cast<float>(h.batch_ * h.sequence_)) {
      model = h.make_(h.config_, h.options_, memory);
      tokens = memory.persistent("tokens", Category::activations, {h.batch_, h.sequence_}, DType::i32);
      targets = memory.persistent("targets", Category::activations, {h.batch_, h.sequence_}, DType::i32);
      lengths = memory.persistent("lengths", Category::activations, {h.batch_}, DType::i32);
      const DType type = h.options_.precision.activation;
      logits = memory.persistent("logits", Category::activations, {h.batch_ * h.sequence_, h.config_.vocab_size}, type);
      last = memory.persistent("last", Category::activations, {h.batch_, h.config_.vocab_size}, type);
      losses = memory.persistent("losses", Category::activations, {h.batch_ * h.sequence_},
                                 h.options_.precision.statistic());
    }
    model::Batch batch() const { return {tokens, targets, lengths}; }
    void outputs(Exec& exec) const {
      const ProgramScope program(exec.memory, "outputs");
      model->outputs(exec, logits, batch());
      model->outputs(exec, last, batch(), nn::Head::Rows::last);
    }
    void refresh(Exec& exec) const {
      const ProgramScope program(exec.memory, "refresh");
      model->refresh(exec, tokens);
    }
    void train(Exec& exec) const {
      const ProgramScope program(exec.memory, "train");
      model->forward_backward(exec, losses, batch(), scale);
    }
    void evaluate(Exec& exec) const {
      const ProgramScope program(exec.memory, "evaluate");
      model->evaluate(exec, losses, batch());
    }
  };

  double mean_loss() const {
    double sum = 0;
    const int64_t n = body_->losses.numel();
    for (int64_t i = 0; i < n; ++i) {
      sum += body_->losses.dtype == DType::f64 ? body_->losses.as<double>()[i]
                                               : static_cast<double>(body_->losses.as<float>()[i]);
    }
    return sum / static_cast<double>(n);
  }

  model::ModelConfig config_;
  model::BuildOptions options_;
  int64_t batch_, sequence_;
  Make make_;
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<Exec> exec_;
  std::unique_ptr<Body> body_;
};

inline model::ModelConfig tiny_llama() {
  return {.architecture = "llama",
          .vocab_size = 23,
          .hidden = 12,
          .intermediate = 20,
          .layers = 3,
          .heads = 6,
          .kv_heads = 3,
          .context = 16,
          .norm_eps = 1e-6f,
          .rope_base = 10000.0f,
          .init_std = 0.3f};
}

inline model::ModelConfig tiny_gpt2() {
  return {.architecture = "gpt2",
          .vocab_size = 19,
          .hidden = 15,
          .intermediate = 28,
          .layers = 2,
          .heads = 3,
          .kv_heads = 0,
          .context = 16,
          .norm_eps = 1e-5f,
          .rope_base = 10000.0f,
          .init_std = 0.3f};
}

}  // namespace llmz::test
