#include <cmath>
#include <limits>

#include "catch.h"
#include "llmz/optim/optimizer.h"

using namespace llmz;
using namespace llmz::optim;

namespace {

Parameter parameter(ParamGroup group, ParamKind kind) {
  Parameter p;
  p.group = group;
  p.kind = kind;
  return p;
}

/// Parameters of `sizes` elements, weights 1, gradients 0, planned and allocated with a clip and an AdamW.
struct Setup {
  std::vector<Parameter> storage;
  std::unique_ptr<Memory> memory;
  std::unique_ptr<GradientClip> clip;
  std::unique_ptr<Optimizer> optimizer;

  Setup(const OptimizerConfig& config, std::vector<Parameter> parameters, int64_t size)
      : storage(std::move(parameters)) {
    Memory recorder;
    build(recorder, config, size);
    run(recorder, 0);
    clip.reset();
    optimizer.reset();
    memory = std::make_unique<Memory>(recorder.finish());
    build(*memory, config, size);
    for (Parameter& p : storage) std::fill_n(p.weight.as<float>(), size, 1.0f);
  }

  void run(Memory& m, double lr) {
    Exec exec(m);
    {
      const ProgramScope program(m, "norm");
      clip->measure(exec);
    }
    const ProgramScope program(m, "update");
    optimizer->step(exec, 1, lr, clip->scale());
  }
  void step(double lr) { run(*memory, lr); }

 private:
  void build(Memory& m, const OptimizerConfig& config, int64_t size) {
    std::vector<Parameter*> pointers;
    for (size_t i = 0; i < storage.size(); ++i) {
      Parameter& p = storage[i];
      p.name = "p" + std::to_string(i);
      p.weight = m.persistent(p.name, Category::weights, {size}, DType::f32);
      p.grad.dense = m.persistent(p.name + ".grad", Category::gradients, {size}, DType::f32);
      pointers.push_back(&p);
    }
    clip = std::make_unique<GradientClip>(config.clip_norm, pointers, m);
    optimizer = make_optimizer(config, pointers, m);
  }
};

}  // namespace

TEST_CASE("learning rates go by group, decay by kind") {
  OptimizerConfig config;
  config.lr_scale = {.blocks = 2, .embedding = 3, .head = 5, .norms = 7};
  config.weight_decay = 0.25f;
  const Parameter matrix = parameter(ParamGroup::blocks, ParamKind::matrix);
  const Parameter bias = parameter(ParamGroup::blocks, ParamKind::bias);
  const Parameter gain = parameter(ParamGroup::norms, ParamKind::gain);
  const Parameter norm_bias = parameter(ParamGroup::norms, ParamKind::bias);
  const Parameter table = parameter(ParamGroup::embedding, ParamKind::embedding);
  const Parameter head = parameter(ParamGroup::head, ParamKind::matrix);
  CHECK(lr_scale_of(config, matrix) == 2);
  CHECK(lr_scale_of(config, table) == 3);
  CHECK(lr_scale_of(config, head) == 5);
  CHECK(lr_scale_of(config, gain) == 7);
  CHECK(weight_decay_of(config, matrix) == 0.25f);
  CHECK(weight_decay_of(config, head) == 0.25f);
  for (const Parameter* p : {&bias, &gain, &norm_bias, &table}) CHECK(weight_decay_of(config, *p) == 0);
  config.decay_on = {.norms = true, .biases = false, .embedding = false};
  CHECK(weight_decay_of(config, gain) == 0.25f);
  CHECK(weight_decay_of(config, norm_bias) == 0.25f);
  CHECK(weight_decay_of(config, bias) == 0);
  config.decay_on = {.norms = false, .biases = true, .embedding = true};
  CHECK(weight_decay_of(config, bias) == 0.25f);
  CHECK(weight_decay_of(config, table) == 0.25f);
  CHECK(weight_decay_of(config, norm_bias) == 0);
}

TEST_CASE("one AdamW step moves each group by its own rate and decays what decays") {
  OptimizerConfig config;
  config.clip_norm = 0;
  config.weight_decay = 0.5f;
  config.lr_scale = {.blocks = 1, .embedding = 1, .head = 4, .norms = 2};
  Setup s(config,
          {parameter(ParamGroup::blocks, ParamKind::matrix), parameter(ParamGroup::head, ParamKind::matrix),
           parameter(ParamGroup::norms, ParamKind::gain)},
          5);
  for (Parameter& p : s.storage) std::fill_n(p.grad.dense.as<float>(), 5, -3.0f);
  s.step(0.01);
  // Adam's first step is lr·sign(gradient), up to eps; decay is lr·0.5·1.
  CHECK(s.storage[0].weight.as<float>()[2] == Approx(1 - 0.005 + 0.01).epsilon(1e-6));
  CHECK(s.storage[1].weight.as<float>()[4] == Approx(1 - 0.02 + 0.04).epsilon(1e-6));
  CHECK(s.storage[2].weight.as<float>()[0] == Approx(1 + 0.02).epsilon(1e-6));
}

TEST_CASE("clipping scales by the norm over all parameters") {
  OptimizerConfig config;
  config.clip_norm = 2.0f;
  Setup s(config, {parameter(ParamGroup::blocks, ParamKind::matrix), parameter(ParamGroup::head, ParamKind::matrix)},
          2);
  s.storage[0].grad.dense.as<float>()[0] = 3;
  s.storage[1].grad.dense.as<float>()[1] = 4;
  s.step(0);
  CHECK(*s.clip->norm().as<float>() == Approx(5));
  CHECK(*s.clip->scale().as<float>() == Approx(0.4));
  s.storage[0].grad.dense.as<float>()[0] = 0.3f;
  s.storage[1].grad.dense.as<float>()[1] = 0.4f;
  s.step(0);
  CHECK(*s.clip->scale().as<float>() == 1);
  s.storage[1].grad.dense.as<float>()[1] = std::numeric_limits<float>::infinity();
  s.step(0);
  CHECK(std::isinf(*s.clip->norm().as<float>()));
}

TEST_CASE("an unknown optimizer is refused with the known ones") {
  OptimizerConfig config;
  config.name = "adamv";
  Memory recorder;
  CHECK_THROWS_WITH(make_optimizer(config, {}, recorder), contains("'adamv'") && contains("adamw"));
}
