#include "src/run/diagnostics.h"

#include <nlohmann/json.hpp>

#include "llmz/core/transfer.h"

namespace llmz::run {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

DiagnosticsLog::DiagnosticsLog(const std::filesystem::path& folder, int64_t last_step)
    : errors_(folder / "diagnostics.jsonl", last_step), spectra_(folder / "spectra.jsonl", last_step) {}

void DiagnosticsLog::sync() {
  errors_.sync();
  spectra_.sync();
}

void DiagnosticsLog::write_errors(int64_t step, const std::vector<engine::CodeError>& errors) {
  for (const engine::CodeError& e : errors) {
    errors_.append(Json{{"step", step}, {e.what, e.name}, {"relative_error", e.relative_error}}.dump());
  }
}

void DiagnosticsLog::write_spectra(int64_t step, const std::vector<subspace::Spectrum>& spectra, Memory& memory) {
  for (const subspace::Spectrum& s : spectra) {
    const Json leading = host_copy<float>(memory, s.values);
    const auto energy = host_scalar<float>(memory, s.total);
    spectra_.append(Json{{"step", step}, {"tensor", s.name}, {"energy", energy}, {"eigenvalues", leading}}.dump());
  }
}

}  // namespace llmz::run
