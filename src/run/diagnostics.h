#pragma once

#include <filesystem>
#include <vector>

#include "llmz/engine/engine.h"
#include "src/run/json_lines.h"

namespace llmz::run {

/// What a run writes about its codes: `diagnostics.jsonl` (relative errors of codes and weight gradients, where
/// train.diagnostics asks for them) and `spectra.jsonl` (the leading eigenvalues that refreshes of principal parts
/// saw). Files appear where there is something to write.
class DiagnosticsLog {
 public:
  /// Lines of steps after `last_step` are taken out.
  DiagnosticsLog(const std::filesystem::path& folder, int64_t last_step);

  void write_errors(int64_t step, const std::vector<engine::CodeError>& errors);
  void write_spectra(int64_t step, const std::vector<subspace::Spectrum>& spectra, Memory& memory);
  void sync();

 private:
  JsonLines errors_, spectra_;
};

}  // namespace llmz::run
