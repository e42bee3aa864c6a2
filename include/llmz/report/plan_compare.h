#pragma once

#include <map>
#include <string>
#include <vector>

#include "llmz/core/memory.h"
#include "llmz/run/config.h"

namespace llmz::report {

/// Tensor roles by which code bytes are told, in the order of a table's columns.
const std::vector<std::string>& code_roles();

/// What one method takes of memory and arithmetic, for any size of model, without allocating it.
struct MethodPlan {
  std::string preset;
  MemoryPlan::Totals totals;            ///< of the whole run
  size_t persistent[kCategories] = {};  ///< bytes held for the whole run
  std::map<std::string, size_t> codes;  ///< bytes by role at the peak of a micro-step
  size_t code_bytes = 0;                ///< their sum
  size_t other_bytes = 0;               ///< activations and workspace at that moment
  double code_bytes_per_token_layer = 0;
  double flops_per_token = 0;
  int rank = 0, ranks = 1;            ///< whose memory it is: that of the rank which takes most
  double sent = 0, refresh_sent = 0;  ///< bytes that each rank sends in a step, and in addition where all is refreshed
};

/// One row a preset, each in the place of the configuration's own method, for the one of `ranks` ranks that takes most.
std::vector<MethodPlan> compare_presets(const run::RunConfig& config, const std::vector<std::string>& presets,
                                        int ranks = 1);

std::string comparison_table(const std::vector<MethodPlan>& plans);
std::string comparison_json(const std::vector<MethodPlan>& plans);

/// The inputs of linear layers as the papers count them, in bf16, beside llmz's own codes of the same tensors (bf16
/// too).
struct PaperAccount {
  std::string preset;
  double paper_bytes = 0;  ///< 0: the method is in neither paper
  double llmz_bytes = 0;
  std::string formula;
};
std::vector<PaperAccount> paper_accounting(const run::RunConfig& config, const std::vector<std::string>& presets);
std::string paper_table(const std::vector<PaperAccount>& accounts, const run::RunConfig& config);

}  // namespace llmz::report
