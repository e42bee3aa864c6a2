#include "llmz/train/diagnostics.h"

#include <nlohmann/json.hpp>

namespace llmz::train {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

DiagnosticsLog::DiagnosticsLog(const std::filesystem::path& folder, int64_t last_step)
    : errors_(folder / "diagnostics.jsonl", last_step), spectra_(folder / "spectra.jsonl", last_step) {}

void DiagnosticsLog::sync() {
  errors_.sync();
  spectra_.sync();
}

void DiagnosticsLog::write_errors(int64_t step, const std::vector<CodeError>& errors) {
  for (const CodeError& e : errors) {
    errors_.append(Json{{"step", step}, {e.what, e.name}, {"relative_error", e.relative_error}}.dump());
  }
}

void DiagnosticsLog::write_spectra(int64_t step, const std::vector<codec::Spectrum>& spectra) {
  for (const codec::Spectrum& s : spectra) {
    const float* values = s.values.as<float>();
    const Json leading = std::vector<float>(values, values + s.values.numel());
    spectra_.append(
        Json{{"step", step}, {"tensor", s.name}, {"energy", *s.total.as<float>()}, {"eigenvalues", leading}}.dump());
  }
}

}  // namespace llmz::train
