#include "llmz/optim/settings.h"

#include "llmz/optim/optimizer.h"
#include "src/optim/adam_settings.h"
#include "src/optim/schedule.h"

namespace llmz::optim {
namespace {

using config::above;
using config::at_least;
using config::between;
using config::from_below;
using config::one_of;

config::Fields<LrScale> lr_scale_fields() {
  using L = LrScale;
  return config::Fields<L>()
      .key("blocks", &L::blocks, "factor on the learning rate of the blocks' matrices", at_least(0))
      .key("attention_output", &L::attention_output, "another factor on that of the output projections of attention",
           at_least(0))
      .key("embedding", &L::embedding, "factor on the learning rate of the embeddings", at_least(0))
      .key("head", &L::head, "factor on the learning rate of the output head", at_least(0))
      .key("norms", &L::norms, "factor on the learning rate of the norms", at_least(0));
}

config::Fields<DecayOn> decay_on_fields() {
  using D = DecayOn;
  return config::Fields<D>()
      .key("norms", &D::norms, "weight decay touches the norms too")
      .key("biases", &D::biases, "weight decay touches the biases too")
      .key("embedding", &D::embedding, "weight decay touches the embeddings too");
}

config::ListType rule_list() {
  using R = RulePlace;
  const auto common =
      config::Fields<R>()
          .key("where", &R::where,
               "the parameters: all, a group (blocks, with attention_output; embedding, head, norms), a kind (matrix, "
               "gain, bias), or both (blocks.matrix)")
          .key("lr_scale", &R::lr_scale, "factor on the learning rate, beside optimizer.lr_scale", at_least(0))
          .key("decay_scale", &R::decay_scale, "factor on optimizer.weight_decay", at_least(0));
  config::ListType list{.selector = "use", .meaning = "update rule", .common = config::in_bag(common), .choices = {}};
  for (const RuleRow* row : rule_table()) {
    list.choices.push_back(
        {row->name, row->meaning, row->fields != nullptr ? row->fields() : config::Fields<config::Bag>()});
  }
  return list;
}

}  // namespace

config::Fields<OptimizerConfig> optimizer_fields() {
  using O = OptimizerConfig;
  return config::Fields<O>()
      .key("name", &O::name, "update rule", one_of(optimizer_names()))
      .key("moments", &O::moments,
           "where the moments live: `full` in the weight's shape, `factored` with the second one as a row and a column "
           "(Adafactor), `subspace` in the shape of low-rank gradients (CompAct)",
           moment_kinds())
      .key("first_moment_bits", &O::first_moment_bits,
           "32, or 8 (block-wise dynamic quantisation) with factored moments", between(8, 32))
      .object("subspace", &O::subspace, subspace_fields())
      .key("lr", &O::lr, "peak learning rate", at_least(0))
      .key("beta1", &O::beta1, "decay of the first moment", from_below(0, 1))
      .key("beta2", &O::beta2, "decay of the second moment", from_below(0, 1))
      .key("eps", &O::eps, "added to the root of the second moment", above(0))
      .key("weight_decay", &O::weight_decay,
           "decoupled weight decay of the matrices of blocks and head, times the learning rate", at_least(0))
      .key("clip_norm", &O::clip_norm,
           "largest norm of the whole gradient, which is scaled down to it; 0 = no clipping", at_least(0))
      .object("lr_scale", &O::lr_scale, lr_scale_fields())
      .object("decay_on", &O::decay_on, decay_on_fields())
      .list("rules", &O::rules,
            "which rule updates what: the first entry that has a parameter and can update it; the rest goes to `name`. "
            "Settings that an entry leaves out are as the keys of `optimizer` of that name say",
            rule_list());
}

config::Fields<ScheduleConfig> schedule_fields() {
  using S = ScheduleConfig;
  std::vector<std::string> kinds;
  std::string meanings;
  config::Fields<S> own;
  for (const ScheduleRow& row : schedule_rows()) {
    kinds.emplace_back(row.name);
    if (row.meaning != nullptr) meanings += fmt::format("; {} = {}", row.name, row.meaning);
    if (row.fields != nullptr) own.merge(row.fields());
  }
  return config::Fields<S>()
      .key("kind", &S::kind, "course of the learning rate after the warm-up" + meanings, one_of(kinds))
      .key("warmup", &S::warmup, "length of the linear warm-up: steps when at least 1, else a fraction of all steps",
           between(0, kMaxSteps))
      .key("final_fraction", &S::final_fraction, "learning rate of the last step, as a fraction of the peak",
           between(0, 1))
      .merge(own);
}

}  // namespace llmz::optim
