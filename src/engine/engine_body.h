#pragma once

#include <memory>
#include <string>
#include <vector>

#include "llmz/engine/engine.h"
#include "llmz/engine/owned_rows.h"
#include "src/engine/gradient_exchange.h"

namespace llmz::engine {

/// Everything of an engine that is built twice: once against the recording memory, once against the arena. Each method
/// that takes buffers is one program of the memory plan.
struct Engine::Body {
  std::unique_ptr<model::Model> model;
  std::unique_ptr<OwnedRows> owned;
  std::unique_ptr<optim::Optimizer> optimizer;
  std::unique_ptr<optim::GradientClip> clip;
  std::unique_ptr<GradientExchange> exchange;
  Tensor tokens, targets, losses;
  Tensor loss_sum;  ///< over the micro-steps of a step
  Tensor scalar;    ///< for a number over all ranks or parameters

  Body(const EngineOptions& o, Memory& memory);
  Body(const Body&) = delete;  // its parts point to each other
  Body& operator=(const Body&) = delete;

  /// Every program that an engine of these options runs, each once, with nobody to send to.
  void rehearse(Exec& exec, const EngineOptions& o);

  void zero_gradients(Exec& exec);
  /// What a step with due refreshes does before its first micro-step, looking at `tokens`: every rank makes a share of
  /// the bases, and all get them.
  void refresh(Exec& exec);
  void diagnose(Exec& exec);
  void micro_step(Exec& exec, float grad_scale, const model::Model::GradientsReady& ready = {});
  /// All gradients, where `micro_step` was not told to hand them on.
  void exchange_all(Exec& exec);
  void measure(Exec& exec);
  /// What the optimizer renews in this step between backward and update; `due` are some of its periods.
  void renew(Exec& exec, const std::vector<int64_t>& due, int64_t step, double lr);
  void update(Exec& exec, int64_t step, double lr);
  void evaluate(Exec& exec);

 private:
  void share_bases(Exec& exec);
};

/// Every non-empty choice of some of the periods: those that may fall due together. `keys`: where they come from.
std::vector<std::vector<int64_t>> period_combinations(const std::vector<int64_t>& periods, const char* keys);

}  // namespace llmz::engine
