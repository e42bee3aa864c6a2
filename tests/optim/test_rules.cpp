// Which rule updates which parameter, and a rule of a test's own among the others.
#include <cmath>

#include "catch.h"
#include "errors.h"
#include "llmz/ops/elementwise.h"
#include "llmz/optim/optimizer.h"
#include "src/optim/adam_settings.h"

using namespace llmz;
using namespace llmz::optim;

namespace {

struct PlainSettings {
  float momentum = 0.5f;
};

/// W −= lr·decay·W + lr·momentum·G, and what it did in `count` [1].
class Plain final : public Rule {
 public:
  Plain(const RuleContext& c, const Parameter& p)
      : Rule(c, p),
        momentum_(c.settings.get<PlainSettings>().momentum),
        count_(keep("count", {1}, DType::f32, /*by_rows=*/false)) {}

  void step(Exec&, const StepArgs& args) override {
    const ops::UpdateArgs now = update(args);
    if (now.weight.is_meta()) return;
    for (int64_t i = 0; i < now.weight.numel(); ++i) {
      float& w = now.weight.as<float>()[i];
      w -= now.lr * (now.weight_decay * w + momentum_ * now.grad.as<float>()[i]);
    }
    *count_.as<float>() += 1;
  }

 private:
  float momentum_;
  Tensor count_;
};

config::Fields<config::Bag> fields() {
  return config::in_bag(config::Fields<PlainSettings>().key("momentum", &PlainSettings::momentum,
                                                            "factor on the gradient", config::between(0, 1)));
}

constexpr RuleRow kPlain = {.name = "plain",
                            .meaning = "for this test",
                            .make = make_rule<Plain>,
                            .where = "blocks.matrix",
                            .owns = Owns::whole,
                            .suits = is_matrix,
                            .needs = "needs matrices",
                            .fields = fields};

std::vector<const RuleRow*> with_plain() {
  std::vector<const RuleRow*> rows(rule_table().begin(), rule_table().end());
  rows.push_back(&kPlain);
  return rows;
}

/// A block's matrix, its output projection, its bias, the head and a norm's gain.
struct Model {
  std::vector<Parameter> storage;
  std::vector<Parameter*> parameters;

  Model() {
    const auto add = [&](const char* name, ParamGroup group, ParamKind kind, Shape shape) {
      Parameter p;
      p.name = name, p.group = group, p.kind = kind;
      p.weight = Tensor(nullptr, DType::f32, shape, {DeviceType::meta, 0});
      storage.push_back(p);
    };
    add("qkv", ParamGroup::blocks, ParamKind::matrix, {6, 4});
    add("out", ParamGroup::attention_output, ParamKind::matrix, {4, 2});
    add("bias", ParamGroup::blocks, ParamKind::bias, {6});
    add("head", ParamGroup::head, ParamKind::matrix, {5, 4});
    add("gain", ParamGroup::norms, ParamKind::gain, {4});
    for (Parameter& p : storage) parameters.push_back(&p);
  }

  std::vector<std::string> rules(const OptimizerConfig& config) const {
    const auto rows = with_plain();
    std::vector<std::string> names;
    for (const RuleChoice& choice : choose_rules(config, parameters, rows)) names.emplace_back(choice.row->name);
    return names;
  }
};

config::Choice entry(const char* rule, RulePlace place = {}) {
  config::Choice choice{.name = rule, .settings = {}};
  choice.settings.get<RulePlace>() = std::move(place);
  return choice;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("places are groups, kinds, or both") {
  const Model m;
  const auto in = [&](const char* where) {
    std::string all;
    for (const Parameter* p : m.parameters) all += is_in(where, *p) ? p->name + " " : "";
    return all;
  };
  CHECK(in("all") == "qkv out bias head gain ");
  CHECK(in("blocks") == "qkv out bias ");
  CHECK(in("attention_output") == "out ");
  CHECK(in("matrix") == "qkv out head ");
  CHECK(in("blocks.matrix") == "qkv out ");
  CHECK(in("norms.bias").empty());
  for (const char* wrong : {"block", "blocks.", ".matrix", "matrix.blocks", ""}) {
    CHECK_ERROR(is_in(wrong, *m.parameters[0]), fmt::format("\"{}\"", wrong), "blocks.matrix");
  }
}

TEST_CASE("the first entry that has a parameter and can update it does so") {
  const Model m;
  OptimizerConfig config;
  CHECK(m.rules(config) == Names{"adamw", "adamw", "adamw", "adamw", "adamw"});
  config.moments = optim::Moments::factored;
  CHECK(m.rules(config) == Names{"adamw_factored", "adamw_factored", "adamw", "adamw_factored", "adamw"});
  config.rules = {entry("adamw", {.where = "attention_output"}), entry("plain", {.where = "blocks"})};
  CHECK(m.rules(config) == Names{"plain", "adamw", "adamw", "adamw_factored", "adamw"});
  config = {};
  config.name = "plain";  // where it says by itself, and AdamW for the rest
  CHECK(m.rules(config) == Names{"plain", "plain", "adamw", "adamw", "adamw"});
}

TEST_CASE("entries that mean nothing are refused") {
  const Model m;
  const auto with = [](config::Choice selection) {
    OptimizerConfig config;
    config.rules = {std::move(selection)};
    return config;
  };
  CHECK_ERROR(m.rules(with(entry("plian"))), "optimizer.rules[0].use", "'plian'", "plain");
  CHECK_ERROR(m.rules(with(entry("adamw", {.where = "blocs"}))), "\"blocs\"");
  CHECK_ERROR(m.rules(with(entry("plain", {.where = "norms"}))), "optimizer.rules[0]", "norms", "needs matrices");
  CHECK_ERROR(m.rules(with(entry("adamw_subspace"))), "optimizer.rules[0]", "needs low-rank weight gradients");
  CHECK_ERROR(m.rules(with(entry("adamw", {.where = "embedding"}))), "optimizer.rules[0]", "no such parameter");
}

TEST_CASE("an entry for which earlier ones leave nothing is told so, not that it needs what is there") {
  const Model m;
  OptimizerConfig config;
  config.rules = {entry("adamw"), entry("plain", {.where = "blocks"})};
  CHECK_ERROR(m.rules(config), "optimizer.rules[1] (where \"blocks\")", "earlier entries of optimizer.rules");
  config.rules = {entry("adamw"), entry("adamw", {.where = "norms"})};
  CHECK_ERROR(m.rules(config), "optimizer.rules[1]", "earlier entries of optimizer.rules");
  config.rules = {entry("adamw")};
  config.moments = Moments::factored;
  CHECK_ERROR(m.rules(config), "optimizer.moments = \"factored\"", "earlier entries of optimizer.rules");
  config.rules = {entry("adamw_factored", {.where = "matrix"})};
  CHECK_ERROR(m.rules(config), "optimizer.moments = \"factored\"", "earlier entries of optimizer.rules");
  config = {};
  config.name = "plain";
  config.rules = {entry("adamw", {.where = "matrix"})};
  CHECK_ERROR(m.rules(config), "optimizer.name", "earlier entries of optimizer.rules");
}

TEST_CASE("what an entry leaves out of a form of AdamW is as the keys of the optimizer say") {
  const Model m;
  OptimizerConfig config;
  config.beta1 = 0.1f, config.beta2 = 0.5f, config.eps = 1e-3f;
  config.rules = {entry("adamw")};
  config.rules[0].settings.get<AdamSettings>().beta2 = 0.25f;
  config.rules[0].given = {"beta2"};
  const auto settings = choose_rules(config, m.parameters).front().settings.get<AdamSettings>();
  CHECK(settings.beta1 == 0.1f);
  CHECK(settings.beta2 == 0.25f);
  CHECK(settings.eps == 1e-3f);
}

TEST_CASE("a rule's own settings, rate and decay reach it; its states are in the list") {
  const auto rows = with_plain();
  OptimizerConfig config;
  config.lr_scale.blocks = 2;
  config.rules = {entry("plain", {.where = "blocks", .lr_scale = 4, .decay_scale = 0.5f})};
  config.rules[0].settings.get<PlainSettings>().momentum = 0.25f;
  config.weight_decay = 1;
  Parameter p;
  p.name = "w";
  std::unique_ptr<Memory> memory;
  std::unique_ptr<Optimizer> optimizer;
  const auto build = [&](Memory& m) {
    p.weight = m.persistent("w", Category::weights, {2, 3}, DType::f32);
    p.grad.dense = m.persistent("w.grad", Category::gradients, {2, 3}, DType::f32);
    optimizer = make_optimizer(config, {&p}, m, {}, rows);
  };
  const auto step = [&](Memory& m) {
    Exec exec(m);
    const ProgramScope program(m, "update");
    optimizer->step(exec, 1, 0.125, {});
  };
  Memory recorder;
  build(recorder);
  step(recorder);
  memory = std::make_unique<Memory>(recorder.finish());
  build(*memory);
  std::fill_n(p.weight.as<float>(), 6, 8.0f);
  std::fill_n(p.grad.dense.as<float>(), 6, 2.0f);
  step(*memory);
  // 8 − 0.125·2·4·(0.5·8 + 0.25·2): all powers of two.
  CHECK(p.weight.as<float>()[5] == 3.5f);
  const auto states = optimizer->states();
  REQUIRE(states.size() == 1);
  CHECK(states[0].slot == "count");
  CHECK_FALSE(states[0].by_rows);
  CHECK(*states[0].tensor.as<float>() == 1);
}
