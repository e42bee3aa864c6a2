#pragma once

#include <memory>
#include <optional>

#include "llmz/data/dataset.h"
#include "llmz/data/loader.h"
#include "llmz/run/config.h"
#include "llmz/text/tokenizer.h"

namespace llmz::run {

/// The shards of a run, their order, and the tokenizer that made them, checked against the model before anything is
/// allocated or written.
struct RunData {
  data::Dataset train;
  data::Loader loader;
  std::optional<data::Dataset> validation;
  std::unique_ptr<text::Tokenizer> tokenizer;

  explicit RunData(const RunConfig& config);

 private:
  void load_tokenizer(const DataConfig& config, int64_t model_vocab_size);
};

}  // namespace llmz::run
