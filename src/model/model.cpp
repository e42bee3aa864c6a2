#include "llmz/model/model.h"

#include <algorithm>
#include <set>

#include "llmz/ops/elementwise.h"

namespace llmz::model {
namespace {

nn::Pass pass_over(const Batch& batch) {
  return {.batch = batch.tokens.dim(0), .sequence = batch.tokens.dim(1), .lengths = batch.lengths};
}

Tensor flattened(const Tensor& t) { return t.reshape({t.numel()}); }

}  // namespace

Model::Model(ModelConfig config, nn::Precision precision, Parts parts)
    : config_(std::move(config)), precision_(precision), parts_(std::move(parts)) {}

int64_t Model::parameter_count() const {
  int64_t n = 0;
  for (const Parameter* p : parameters()) n += p->weight.numel();
  return n;
}

int64_t Model::matmul_parameter_count() const {
  int64_t n = 0;
  bool own_head = false;
  for (const Parameter* p : parameters()) {
    if (p->kind == ParamKind::matrix) n += p->weight.numel();
    own_head |= p->group == ParamGroup::head;
  }
  return own_head ? n : n + config_.vocab_size * config_.hidden;
}

void Model::initialise(Exec& exec, uint64_t seed) {
  for (Parameter* p : parameters()) {
    const RandomStream stream(seed, Purpose::weights, p->stream);
    if (p->init_std > 0) {
      ops::fill_normal(exec, p->weight, stream, 0, p->init_std);
    } else {
      ops::fill(exec, p->weight, p->init_mean);
    }
  }
}

Buffer Model::forward(Exec& exec, const nn::Pass& pass, Tensor tokens, std::vector<nn::KvCache>* caches) {
  Buffer x =
      exec.memory.take("residual", Category::activations, {pass.tokens(), config_.hidden}, precision_.activation);
  parts_.embedding->forward(exec, pass, x.tensor(), tokens);
  for (size_t i = 0; i < parts_.blocks.size(); ++i) {
    parts_.blocks[i]->forward(exec, pass, x.tensor(), caches != nullptr ? &(*caches)[i] : nullptr);
  }
  return x;
}

void Model::forward_backward(Exec& exec, Tensor losses, const Batch& batch, float grad_scale,
                             const GradientsReady& ready) {
  const auto done = [&](size_t part) {
    if (ready) ready(parts_.begins[part], parts_.begins[part + 1]);
  };
  nn::Pass pass = pass_over(batch);
  pass.keep = true;
  const Tensor flat = flattened(batch.tokens);
  Buffer x = forward(exec, pass, flat, nullptr);
  parts_.head->loss(exec, pass, losses, x.tensor(), flattened(batch.targets), grad_scale);

  const Buffer dx = std::move(x);  // the stream's end is no longer needed: its gradient takes its place
  ops::fill(exec, dx.tensor(), 0.0f);
  parts_.head->backward(exec, dx.tensor());
  done(parts_.blocks.size() + 1);
  for (size_t i = parts_.blocks.size(); i-- > 0;) {
    parts_.blocks[i]->backward(exec, pass, dx.tensor());
    done(i + 1);
  }
  parts_.embedding->backward(exec, pass, dx.tensor(), flat);
  done(0);
}

bool Model::draws_each_pass() const {
  return std::any_of(parts_.codecs.begin(), parts_.codecs.end(),
                     [](const codec::Codec* c) { return c->facts().draws_each_pass; });
}

std::vector<subspace::Refresh*> Model::refreshes() const {
  std::vector<subspace::Refresh*> all;
  for (codec::Codec* c : parts_.codecs) {
    if (subspace::Refresh* const refresh = c->refresh()) all.push_back(refresh);
  }
  return all;
}

std::vector<int64_t> Model::periods() const {
  std::set<int64_t> all;
  for (const subspace::Refresh* r : refreshes()) {
    for (int64_t period : r->periods()) all.insert(period);
  }
  return {all.begin(), all.end()};
}

std::vector<int64_t> Model::periods_due(int64_t steps_done) const {
  std::vector<int64_t> due;
  for (int64_t period : periods()) {
    if (steps_done % period == 0) due.push_back(period);
  }
  return due;
}

void Model::begin_step(int64_t step, std::vector<int64_t> due) {
  clock().step = step - 1;
  clock().micro_step = 0;
  clock().due = std::move(due);
  for (subspace::Refresh* r : refreshes()) r->advance();
}

bool Model::refresh_due() const {
  const auto all = refreshes();
  return std::any_of(all.begin(), all.end(), [&](const subspace::Refresh* r) {
    const auto periods = r->periods();
    return r->observes() &&
           std::any_of(periods.begin(), periods.end(), [&](int64_t p) { return parts_.clock->is_due(p); });
  });
}

void Model::refresh(Exec& exec, Tensor tokens) {
  const nn::Pass pass{.batch = tokens.dim(0), .sequence = tokens.dim(1), .observe = true};
  forward(exec, pass, tokens.reshape({pass.tokens()}), nullptr);
}

std::vector<subspace::State> Model::codec_states() const {
  std::vector<subspace::State> all;
  for (const subspace::Refresh* r : refreshes()) {
    for (subspace::State& state : r->states()) all.push_back(std::move(state));
  }
  return all;
}

std::vector<subspace::Spectrum> Model::spectra() const {
  std::vector<subspace::Spectrum> all;
  for (const subspace::Refresh* r : refreshes()) {
    for (subspace::Spectrum& spectrum : r->spectra()) all.push_back(std::move(spectrum));
  }
  return all;
}

std::vector<codec::Probe> Model::probes() const {
  std::vector<codec::Probe> all;
  for (const codec::Codec* c : parts_.codecs) {
    const codec::Probing* const probing = c->probing();
    if (probing != nullptr && probing->code.norms.present()) all.push_back(probing->code);
  }
  all.insert(all.end(), parts_.gradient_probes.begin(), parts_.gradient_probes.end());
  return all;
}

void Model::evaluate(Exec& exec, Tensor losses, const Batch& batch) {
  const nn::Pass pass = pass_over(batch);
  const Buffer x = forward(exec, pass, flattened(batch.tokens), nullptr);
  parts_.head->loss(exec, pass, losses, x.tensor(), flattened(batch.targets), 0.0f);
}

void Model::outputs(Exec& exec, Tensor out, const Batch& batch, nn::Head::Rows rows) {
  const nn::Pass pass = pass_over(batch);
  const Buffer x = forward(exec, pass, flattened(batch.tokens), nullptr);
  parts_.head->outputs(exec, pass, out, x.tensor(), rows);
}

void Model::generate(Exec& exec, Tensor logits, Tensor tokens, int64_t position, std::vector<nn::KvCache>& caches) {
  const nn::Pass pass{.batch = tokens.dim(0), .sequence = tokens.dim(1), .position = position};
  const Buffer x = forward(exec, pass, tokens.reshape({pass.tokens()}), &caches);
  parts_.head->outputs(exec, pass, logits, x.tensor(), nn::Head::Rows::last);
}

}  // namespace llmz::model
