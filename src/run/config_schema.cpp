#include "config_schema.h"

#include <algorithm>

#include "llmz/codec/codec.h"
#include "llmz/model/model.h"
#include "llmz/optim/optimizer.h"
#include "llmz/run/config_io.h"

namespace llmz::train {
namespace {

using codec::CodecConfig;

using codec::QuantConfig;
using model::ModelConfig;
using nn::ActivationsConfig;
using optim::DecayOn;
using optim::LrScale;
using optim::OptimizerConfig;
using optim::ScheduleConfig;
using optim::SubspaceConfig;
using subspace::ProjectorConfig;
using subspace::ProjectorConfig;

// clang-format off
template <auto... Members>
Slot at(RunConfig& config) { return &(config .* ... .* Members); }
// clang-format on

template <auto Member>
constexpr auto model_key = at<&RunConfig::model, Member>;
template <auto Member>
constexpr auto data_key = at<&RunConfig::data, Member>;
template <auto Member>
constexpr auto precision_key = at<&RunConfig::precision, Member>;
template <auto... Members>
constexpr auto optimizer_key = at<&RunConfig::optimizer, Members...>;
template <auto Member>
constexpr auto schedule_key = at<&RunConfig::schedule, Member>;
template <auto Member>
constexpr auto train_key = at<&RunConfig::train, Member>;
template <auto Member>
constexpr auto distributed_key = at<&RunConfig::distributed, Member>;
template <auto Member>
constexpr auto output_key = at<&RunConfig::output, Member>;

// Above what any machine trains, and below what would overflow a product of two of them.
constexpr double kMaxWidth = 1 << 20;
constexpr double kMaxSteps = 1e12;

Range at_least(double low) { return {.low = low}; }
Range above(double low) { return {.low = low, .above_low = true}; }
Range between(double low, double high) { return {.low = low, .high = high}; }
Range from_below(double low, double high) { return {.low = low, .high = high, .below_high = true}; }

using Keys = std::vector<Key>;

Keys model_keys() {
  return {
      {"model.architecture", model_key<&ModelConfig::architecture>, "LLaMA or GPT-2", {}, model::architectures()},
      {"model.vocab_size", model_key<&ModelConfig::vocab_size>,
       "token ids are below this; at least the tokenizer's size", between(1, std::numeric_limits<int32_t>::max())},
      {"model.hidden", model_key<&ModelConfig::hidden>, "width of the residual stream", between(1, kMaxWidth)},
      {"model.intermediate", model_key<&ModelConfig::intermediate>, "width of the MLP", between(1, kMaxWidth)},
      {"model.layers", model_key<&ModelConfig::layers>, "number of blocks", between(1, 10000)},
      {"model.heads", model_key<&ModelConfig::heads>, "attention heads; they divide `hidden`", between(1, kMaxWidth)},
      {"model.kv_heads", model_key<&ModelConfig::kv_heads>,
       "key/value heads, a divisor of `heads`; 0 = as many as `heads`; llama only", between(0, kMaxWidth)},
      {"model.context", model_key<&ModelConfig::context>, "longest sequence; the number of learned positions of gpt2",
       between(1, 1 << 24)},
      {"model.norm_eps", model_key<&ModelConfig::norm_eps>,
       "added to the variance in RMSNorm and LayerNorm; GPT-2's own value is 1e-5", above(0)},
      {"model.rope_base", model_key<&ModelConfig::rope_base>, "base of the rotary embedding; llama only", above(1)},
      {"model.init_std", model_key<&ModelConfig::init_std>, "standard deviation of the initial weights", at_least(0)},
  };
}

Keys data_keys() {
  return {
      {"data.path", data_key<&DataConfig::path>, "folder made by `llmz data prepare`"},
      {"data.train", data_key<&DataConfig::train>, "instead of `path`: training shards, files or globs"},
      {"data.validation", data_key<&DataConfig::validation>, "instead of `path`'s: validation shards, files or globs"},
      {"data.tokenizer", data_key<&DataConfig::tokenizer>,
       "tokenizer folder or file; empty = the tokenizer in `path`, if there is one"},
  };
}

/// The same keys under several prefixes: those of one projector, or of one code.
template <class Config>
struct KeyFamily {
  std::string prefix, family;
  std::function<Config&(RunConfig&)> find;  ///< the struct that the prefix stands for

  template <class Member>
  Key key(const std::string& name, Member member, const char* meaning, Range range = {},
          std::vector<std::string> choices = {}) const {
    const auto slot = [find = find, member](RunConfig& config) -> Slot { return &(find(config).*member); };
    return {prefix + "." + name, slot, meaning, range, std::move(choices), family + "." + name};
  }
};

Keys projector_keys(const KeyFamily<ProjectorConfig>& of) {
  using P = ProjectorConfig;
  return {
      of.key("projector", &P::kind, "of a sketch; `prac`: principal and random part", {}, subspace::projector_kinds()),
      of.key(
          "rank", &P::rank,
          "columns of the projector (`prac`: of its principal part): up to 1 a fraction of the tensor's width, above a "
          "number",
          above(0)),
      of.key("random_rank", &P::random_rank, "`prac`: columns of the random part", above(0)),
      of.key("random", &P::random, "`prac`: kind of the random part", {}, subspace::random_kinds()),
      of.key("refresh", &P::refresh, "steps between new projectors", between(1, kMaxSteps)),
      of.key("random_refresh", &P::random_refresh, "`prac`: of the random part alone; 0 = with the principal part",
             between(0, kMaxSteps)),
      of.key("decomposition", &P::decomposition,
             "principal part by warm-started subspace iteration, or by exact eigen-decomposition", {},
             {"subspace", "exact"}),
      of.key("seed", &P::seed, "of the projector; 0 = made from `train.seed`", at_least(0)),
  };
}

Keys quant_keys(const KeyFamily<QuantConfig>& of) {
  using Q = QuantConfig;
  return {
      of.key("bits", &Q::bits,
             "4 or 8 bits a number, of `quant` or of a sketch's code; 0: 8 for `quant`, a sketch as it is",
             between(0, 8)),
      of.key("group", &Q::group, "numbers that share a scale; 0 = a row", between(0, kMaxWidth)),
      of.key("rotate", &Q::rotate, "block size of a random Hadamard rotation before rounding, a power of two; 0 = none",
             between(0, 1024)),
      of.key("rounding", &Q::rounding, "to the nearest level, or at random without bias", {},
             {"nearest", "stochastic"}),
  };
}

void append(Keys& keys, Keys more) {
  for (Key& key : more) keys.push_back(std::move(key));
}

Keys activations_keys() {
  Keys keys, details;
  const std::string family = "activations.<role>";
  for (const nn::ActivationRole& role : nn::activation_roles()) {
    const std::string prefix = std::string("activations.") + role.key;
    const auto find = [member = role.config](RunConfig& c) -> CodecConfig& { return c.activations.*member; };
    keys.push_back(
        {prefix + ".codec", [find](RunConfig& c) -> Slot { return &find(c).codec; }, role.meaning, {}, role.codecs});
    append(details,
           projector_keys({prefix, family, [find](RunConfig& c) -> ProjectorConfig& { return find(c).projector; }}));
    append(details, quant_keys({prefix, family, [find](RunConfig& c) -> QuantConfig& { return find(c).quant; }}));
  }
  keys.push_back({"activations.block.codec",
                  at<&RunConfig::activations, &ActivationsConfig::block>,
                  "all of a block; `recompute` keeps only the block's input and runs its forward again in backward",
                  {},
                  {"store", "recompute"}});
  keys.push_back({"activations.norm_constant",
                  at<&RunConfig::activations, &ActivationsConfig::norm_constant>,
                  "where a norm's backward takes mean(dx̂·x̂) from when it has x̂ only approximately: exactly, from the "
                  "linear layer's `outputs`, or from the `code` of x̂ (as PRAC does)",
                  {},
                  {"outputs", "code"}});
  append(keys, std::move(details));
  return keys;
}

Keys weight_gradient_keys() {
  Keys keys = {{"weight_gradient.form",
                at<&RunConfig::weight_gradient, &codec::GradientConfig::form>,
                "`auto`: low-rank where the input is kept as a sketch, else dense; `low_rank`: there too, through the "
                "projector below of the input that backward has; `dense`: none may be low-rank",
                {},
                {"auto", "dense", "low_rank"}}};
  const auto find = [](RunConfig& c) -> ProjectorConfig& { return c.weight_gradient.projector; };
  append(keys, projector_keys({"weight_gradient", "weight_gradient", find}));
  return keys;
}

Keys optimizer_keys() {
  return {
      {"optimizer.name", optimizer_key<&OptimizerConfig::name>, "update rule", {}, optim::optimizer_names()},
      {"optimizer.moments",
       optimizer_key<&OptimizerConfig::moments>,
       "where the moments live: `full` in the weight's shape, `factored` with the second one as a row and a column "
       "(Adafactor), `subspace` in the shape of low-rank gradients (CompAct)",
       {},
       optim::moment_kinds()},
      {"optimizer.first_moment_bits", optimizer_key<&OptimizerConfig::first_moment_bits>,
       "32, or 8 (block-wise dynamic quantisation) with factored moments", between(8, 32)},
      {"optimizer.subspace.alpha", optimizer_key<&OptimizerConfig::subspace, &SubspaceConfig::alpha>,
       "factor on updates that come back from the subspace", at_least(0)},
      {"optimizer.subspace.at_refresh",
       optimizer_key<&OptimizerConfig::subspace, &SubspaceConfig::at_refresh>,
       "what becomes of subspace moments when the projector changes",
       {},
       optim::refresh_policies()},
      {"optimizer.lr", optimizer_key<&OptimizerConfig::lr>, "peak learning rate", at_least(0)},
      {"optimizer.beta1", optimizer_key<&OptimizerConfig::beta1>, "decay of the first moment", from_below(0, 1)},
      {"optimizer.beta2", optimizer_key<&OptimizerConfig::beta2>, "decay of the second moment", from_below(0, 1)},
      {"optimizer.eps", optimizer_key<&OptimizerConfig::eps>, "added to the root of the second moment", above(0)},
      {"optimizer.weight_decay", optimizer_key<&OptimizerConfig::weight_decay>,
       "decoupled weight decay of the matrices of blocks and head, times the learning rate", at_least(0)},
      {"optimizer.clip_norm", optimizer_key<&OptimizerConfig::clip_norm>,
       "largest norm of the whole gradient, which is scaled down to it; 0 = no clipping", at_least(0)},
      {"optimizer.lr_scale.blocks", optimizer_key<&OptimizerConfig::lr_scale, &LrScale::blocks>,
       "factor on the learning rate of the blocks' matrices", at_least(0)},
      {"optimizer.lr_scale.attention_output", optimizer_key<&OptimizerConfig::lr_scale, &LrScale::attention_output>,
       "another factor on that of the output projections of attention", at_least(0)},
      {"optimizer.lr_scale.embedding", optimizer_key<&OptimizerConfig::lr_scale, &LrScale::embedding>,
       "factor on the learning rate of the embeddings", at_least(0)},
      {"optimizer.lr_scale.head", optimizer_key<&OptimizerConfig::lr_scale, &LrScale::head>,
       "factor on the learning rate of the output head", at_least(0)},
      {"optimizer.lr_scale.norms", optimizer_key<&OptimizerConfig::lr_scale, &LrScale::norms>,
       "factor on the learning rate of the norms", at_least(0)},
      {"optimizer.decay_on.norms", optimizer_key<&OptimizerConfig::decay_on, &DecayOn::norms>,
       "weight decay touches the norms too"},
      {"optimizer.decay_on.biases", optimizer_key<&OptimizerConfig::decay_on, &DecayOn::biases>,
       "weight decay touches the biases too"},
      {"optimizer.decay_on.embedding", optimizer_key<&OptimizerConfig::decay_on, &DecayOn::embedding>,
       "weight decay touches the embeddings too"},
  };
}

Keys schedule_keys() {
  return {
      {"schedule.kind",
       schedule_key<&ScheduleConfig::kind>,
       "course of the learning rate after the warm-up; wsd = warm-up, stable, linear decay",
       {},
       optim::schedule_kinds()},
      {"schedule.warmup", schedule_key<&ScheduleConfig::warmup>,
       "length of the linear warm-up: steps when at least 1, else a fraction of all steps", between(0, kMaxSteps)},
      {"schedule.final_fraction", schedule_key<&ScheduleConfig::final_fraction>,
       "learning rate of the last step, as a fraction of the peak", between(0, 1)},
      {"schedule.decay", schedule_key<&ScheduleConfig::decay>,
       "wsd: length of the decay at the end: steps when at least 1, else a fraction of all steps",
       between(0, kMaxSteps)},
  };
}

Keys precision_keys() {
  return {
      {"precision.compute",
       precision_key<&PrecisionConfig::compute>,
       "weights and activations in products; sums are fp32. tf32: fp32 numbers, rounded in a GPU's products. auto = "
       "bf16 on a GPU and on a CPU that multiplies it (AVX-512 bf16, AMX), else fp32",
       {},
       {"auto", "fp32", "tf32", "bf16"}},
      {"precision.weights",
       precision_key<&PrecisionConfig::weights>,
       "how bf16 weights take in updates smaller than their spacing: an fp32 master copy, stochastic rounding, or not "
       "(nearest)",
       {},
       {"master", "stochastic", "nearest"}},
      {"precision.moments",
       precision_key<&PrecisionConfig::moments>,
       "the optimizer's moments, where they are not in 8 bits or factored",
       {},
       {"fp32", "bf16"}},
      {"precision.gradients",
       precision_key<&PrecisionConfig::gradients>,
       "weight gradients, which are summed over micro-batches",
       {},
       {"fp32", "bf16"}},
  };
}

Keys train_keys() {
  return {
      {"train.device", train_key<&TrainConfig::device>,
       "where to compute: `cpu`, `cuda`, `cuda:1` …; auto = a GPU where there is one"},
      {"train.seed", train_key<&TrainConfig::seed>, "of initial weights and data order", at_least(0)},
      {"train.steps", train_key<&TrainConfig::steps>, "optimizer steps", between(1, kMaxSteps)},
      {"train.sequence", train_key<&TrainConfig::sequence>, "tokens in a window; at most `model.context`",
       between(1, 1 << 24)},
      {"train.micro_batch", train_key<&TrainConfig::micro_batch>, "windows in one forward and backward pass",
       between(1, 1 << 24)},
      {"train.global_batch", train_key<&TrainConfig::global_batch>,
       "windows in one optimizer step; a multiple of `micro_batch`", between(1, 1 << 24)},
      {"train.loss_chunk", train_key<&TrainConfig::loss_chunk>,
       "tokens whose logits exist at once; smaller takes less memory", between(1, 1 << 24)},
      {"train.threads", train_key<&TrainConfig::threads>, "CPU threads; 0 = all that this process may use",
       between(0, 65536)},
      {"train.eval_every", train_key<&TrainConfig::eval_every>, "steps between validations; 0 = only at the end",
       between(0, kMaxSteps)},
      {"train.diagnostics", train_key<&TrainConfig::diagnostics>,
       "steps between measurements of the errors of codes and weight gradients, into diagnostics.jsonl; 0 = none",
       between(0, kMaxSteps)},
      {"train.eval_batches", train_key<&TrainConfig::eval_batches>,
       "micro-batches of a validation during training; 0 = the whole split", between(0, kMaxSteps)},
  };
}

Keys distributed_keys() {
  return {
      {"distributed.zero_stage", distributed_key<&DistributedConfig::zero_stage>,
       "0: every rank keeps the whole optimizer state; 1 (ZeRO-1): each keeps an equal part of it, by rows of the "
       "matrices",
       between(0, 1)},
      {"distributed.overlap", distributed_key<&DistributedConfig::overlap>,
       "gradients of late layers are summed over ranks while backward is at the early ones"},
      {"distributed.bucket_mb", distributed_key<&DistributedConfig::bucket_mb>,
       "10^6 bytes of gradients that set out together", between(1, 100000)},
  };
}

Keys output_keys() {
  return {
      {"output.path", output_key<&OutputConfig::path>, "run folder: metrics, checkpoints, this configuration"},
      {"output.log_every", output_key<&OutputConfig::log_every>, "steps between plain progress lines",
       between(1, kMaxSteps)},
      {"output.save_every", output_key<&OutputConfig::save_every>, "steps between checkpoints; 0 = only at the end",
       between(0, kMaxSteps)},
      {"output.keep_every", output_key<&OutputConfig::keep_every>,
       "checkpoints at multiples of this are kept for good; a multiple of `save_every`; 0 = none",
       between(0, kMaxSteps)},
      {"output.save_best", output_key<&OutputConfig::save_best>, "keep the checkpoint of the best validation loss"},
  };
}

struct Group {
  Section section;
  Keys (*keys)();
};

const Group kGroups[] = {
    {{"model", "The model's shape."}, model_keys},
    {{"data", "What is read. Relative paths start at the working directory."}, data_keys},
    {{"activations",
      "What each layer keeps between forward and backward, by the role of the tensor (docs/methods.md). Keys that the "
      "codec "
      "of a role does not use change nothing."},
     activations_keys},
    {{"weight_gradient", "Which form the weight gradients of the blocks' linear layers have."}, weight_gradient_keys},
    {{"precision",
      "How numbers are stored and multiplied. A name instead of an object stands for a set of these keys: fp32, tf32, "
      "bf16, bf16_stochastic, pure_bf16 (the papers' runs)."},
     precision_keys},
    {{"optimizer", "How weights follow gradients."}, optimizer_keys},
    {{"schedule", "How the learning rate moves during the run."}, schedule_keys},
    {{"train", "How long, how much at once, and where."}, train_keys},
    {{"distributed", "How the processes of `mpirun` share a run (docs/distributed.md); one alone takes no notice."},
     distributed_keys},
    {{"output", "What is written."}, output_keys},
};

Keys make_schema() {
  Keys all;
  for (const Group& group : kGroups) {
    for (Key& key : group.keys()) all.push_back(std::move(key));
  }
  return all;
}

std::vector<Section> make_sections() {
  std::vector<Section> all;
  for (const Group& group : kGroups) all.push_back(group.section);
  return all;
}

}  // namespace

const std::vector<Key>& schema() {
  static const Keys keys = make_schema();
  return keys;
}

const std::vector<Section>& sections() {
  static const std::vector<Section> all = make_sections();
  return all;
}

const Key* find_key(const std::string& path) {
  const auto& keys = schema();
  const auto row = std::find_if(keys.begin(), keys.end(), [&](const Key& key) { return key.path == path; });
  return row == keys.end() ? nullptr : &*row;
}

bool is_section(const std::string& path) {
  const auto& keys = schema();
  return std::any_of(keys.begin(), keys.end(), [&](const Key& key) { return key.path.starts_with(path + "."); });
}

}  // namespace llmz::train
