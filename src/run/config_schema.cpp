#include "src/run/config_schema.h"

#include "llmz/codec/settings.h"
#include "llmz/engine/settings.h"
#include "llmz/model/settings.h"
#include "llmz/nn/settings.h"
#include "llmz/optim/settings.h"

namespace llmz::run {
namespace {

using config::at_least;
using config::between;

constexpr double kMaxSteps = 1e12;  // above what any machine trains

config::Fields<DataConfig> data_fields() {
  using D = DataConfig;
  return config::Fields<D>()
      .key("path", &D::path, "folder made by `llmz data prepare`")
      .key("train", &D::train, "instead of `path`: training shards, files or globs")
      .key("validation", &D::validation, "instead of `path`'s: validation shards, files or globs")
      .key("tokenizer", &D::tokenizer, "tokenizer folder or file; empty = the tokenizer in `path`, if there is one");
}

config::Fields<PrecisionConfig> precision_fields() {
  using P = PrecisionConfig;
  return config::Fields<P>()
      .key(
          "compute", &P::compute,
          "weights and activations in products; sums are fp32. tf32: fp32 numbers, rounded in a GPU's products. auto = "
          "bf16 on a GPU and on a CPU that multiplies it (AVX-512 bf16, AMX), else fp32",
          computes())
      .key("weights", &P::weights,
           "how bf16 weights take in updates smaller than their spacing: an fp32 master copy, stochastic rounding, or "
           "not (nearest)",
           optim::bf16_weights())
      .key("moments", &P::moments, "the optimizer's moments, where they are not in 8 bits or factored", stored_types())
      .key("gradients", &P::gradients, "weight gradients, which are summed over micro-batches", stored_types());
}

config::Fields<TrainConfig> train_fields() {
  using T = TrainConfig;
  return config::Fields<T>()
      .key("device", &T::device, "where to compute: `cpu`, `cuda`, `cuda:1` …; auto = a GPU where there is one")
      .key("seed", &T::seed, "of initial weights and data order", at_least(0))
      .key("steps", &T::steps, "optimizer steps", between(1, kMaxSteps))
      .key("sequence", &T::sequence, "tokens in a window; at most `model.context`", between(1, 1 << 24))
      .key("micro_batch", &T::micro_batch, "windows in one forward and backward pass", between(1, 1 << 24))
      .key("global_batch", &T::global_batch, "windows in one optimizer step; a multiple of `micro_batch`",
           between(1, 1 << 24))
      .key("loss_chunk", &T::loss_chunk, "tokens whose logits exist at once; smaller takes less memory",
           between(1, 1 << 24))
      .key("threads", &T::threads, "CPU threads; 0 = all that this process may use", between(0, 65536))
      .key("eval_every", &T::eval_every, "steps between validations; 0 = only at the end", between(0, kMaxSteps))
      .key("diagnostics", &T::diagnostics,
           "steps between measurements of the errors of codes and weight gradients, into diagnostics.jsonl; 0 = none",
           between(0, kMaxSteps))
      .key("eval_batches", &T::eval_batches, "micro-batches of a validation during training; 0 = the whole split",
           between(0, kMaxSteps));
}

config::Fields<OutputConfig> output_fields() {
  using O = OutputConfig;
  return config::Fields<O>()
      .key("path", &O::path, "run folder: metrics, checkpoints, this configuration")
      .key("log_every", &O::log_every, "steps between plain progress lines", between(1, kMaxSteps))
      .key("save_every", &O::save_every, "steps between checkpoints; 0 = only at the end", between(0, kMaxSteps))
      .key("keep_every", &O::keep_every,
           "checkpoints at multiples of this are kept for good; a multiple of `save_every`; 0 = none",
           between(0, kMaxSteps))
      .key("save_best", &O::save_best, "keep the checkpoint of the best validation loss");
}

config::Schema make_schema() {
  using R = RunConfig;
  config::Fields<R> fields;
  std::vector<config::Section> sections;
  const auto section = [&](const char* name, auto member, const auto& keys, const char* meaning) {
    fields.object(name, member, keys);
    sections.push_back({name, meaning});
  };
  section("model", &R::model, model::model_fields(), "The model's shape.");
  section("data", &R::data, data_fields(), "What is read. Relative paths start at the working directory.");
  section("activations", &R::activations, nn::activation_fields(),
          "What each layer keeps between forward and backward, by the role of the tensor (docs/methods.md). Keys that "
          "the codec of a role does not use change nothing.");
  section("weight_gradient", &R::weight_gradient, codec::gradient_fields(),
          "Which form the weight gradients of the blocks' linear layers have.");
  section("precision", &R::precision, precision_fields(),
          "How numbers are stored and multiplied. A name instead of an object stands for a set of these keys: fp32, "
          "tf32, bf16, bf16_stochastic, pure_bf16 (the papers' runs).");
  section("optimizer", &R::optimizer, optim::optimizer_fields(), "How weights follow gradients.");
  section("schedule", &R::schedule, optim::schedule_fields(), "How the learning rate moves during the run.");
  section("train", &R::train, train_fields(), "How long, how much at once, and where.");
  section("distributed", &R::distributed, engine::distributed_fields(),
          "How the processes of `mpirun` share a run (docs/distributed.md); one alone takes no notice.");
  section("output", &R::output, output_fields(), "What is written.");
  return config::Schema(fields, std::move(sections), {"model.base", "preset"});
}

}  // namespace

const config::Names<Compute>& computes() {
  static const config::Names<Compute> names = {
      {"auto", Compute::automatic}, {"fp32", Compute::fp32}, {"tf32", Compute::tf32}, {"bf16", Compute::bf16}};
  return names;
}

const config::Names<DType>& stored_types() {
  static const config::Names<DType> names = {{"fp32", DType::f32}, {"bf16", DType::bf16}};
  return names;
}

const config::Schema& schema() {
  static const config::Schema all = make_schema();
  return all;
}

}  // namespace llmz::run
