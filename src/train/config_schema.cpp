#include "config_schema.h"

#include <algorithm>

#include "llmz/codec/codec.h"
#include "llmz/model/model.h"
#include "llmz/optim/optimizer.h"
#include "llmz/train/config_io.h"

namespace llmz::train {
namespace {

using codec::CodecConfig;
using model::ModelConfig;
using nn::ActivationsConfig;
using optim::DecayOn;
using optim::LrScale;
using optim::OptimizerConfig;
using optim::ScheduleConfig;

// clang-format off
template <auto... Members>
Slot at(RunConfig& config) { return &(config .* ... .* Members); }
// clang-format on

template <auto Member>
constexpr auto model_key = at<&RunConfig::model, Member>;
template <auto Member>
constexpr auto data_key = at<&RunConfig::data, Member>;
template <auto... Members>
constexpr auto optimizer_key = at<&RunConfig::optimizer, Members...>;
template <auto Member>
constexpr auto schedule_key = at<&RunConfig::schedule, Member>;
template <auto Member>
constexpr auto train_key = at<&RunConfig::train, Member>;
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

template <auto Role>
Key role_codec(const std::string& role, std::vector<std::string> codecs, const std::string& meaning) {
  return {"activations." + role + ".codec",
          at<&RunConfig::activations, Role, &CodecConfig::codec>,
          meaning,
          {},
          std::move(codecs)};
}

Keys activations_keys() {
  return {
      role_codec<&ActivationsConfig::input>("input", codec::codec_names(),
                                            "how the input of query/key/value and of gate/up is kept"),
      role_codec<&ActivationsConfig::mlp_down_input>(
          "mlp_down_input", codec::codec_names(),
          "how the SwiGLU or GELU product, the input of the down projection, is kept"),
      role_codec<&ActivationsConfig::block>(
          "block", {"store", "recompute"},
          "`recompute` keeps only a block's input and runs its forward again in the backward pass"),
  };
}

Keys optimizer_keys() {
  return {
      {"optimizer.name", optimizer_key<&OptimizerConfig::name>, "update rule", {}, optim::optimizer_names()},
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

Keys train_keys() {
  return {
      {"train.device",
       train_key<&TrainConfig::device>,
       "where to compute; auto = the best there is",
       {},
       {"auto", "cpu"}},
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
      {"train.eval_batches", train_key<&TrainConfig::eval_batches>,
       "micro-batches of a validation during training; 0 = the whole split", between(0, kMaxSteps)},
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
    {{"activations", "What each layer keeps between forward and backward, by the role of the tensor."},
     activations_keys},
    {{"optimizer", "How weights follow gradients."}, optimizer_keys},
    {{"schedule", "How the learning rate moves during the run."}, schedule_keys},
    {{"train", "How long, how much at once, and where."}, train_keys},
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
