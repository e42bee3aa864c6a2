#include "src/run/metrics.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "llmz/core/error.h"

namespace llmz::run {
namespace {

using Json = nlohmann::ordered_json;

std::string duration(double seconds) {
  const auto s = static_cast<int64_t>(std::llround(seconds));
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

}  // namespace

void MetricsLog::write(const StepMetrics& m) {
  Json entry = {{"step", m.step},
                {"loss", m.loss},
                {"lr", m.lr},
                {"grad_norm", m.grad_norm},
                {"tokens", m.tokens},
                {"seconds", m.seconds},
                {"tokens_per_second", m.tokens_per_second},
                {"matmul_fraction", m.matmul_fraction},
                {"resident_bytes", m.resident_bytes}};
  if (m.ranks > 1) {
    entry["sent_bytes"] = m.sent_bytes;
    entry["seconds_waited"] = m.seconds_waited;
  }
  lines_.append(entry.dump());
}

void MetricsLog::write_validation(int64_t step, double loss) {
  lines_.append(Json{{"step", step}, {"validation_loss", loss}, {"validation_perplexity", std::exp(loss)}}.dump());
}

Progress::Progress(int64_t total_steps, int64_t first_step, int64_t every)
    : total_(total_steps),
      first_(first_step),
      every_(every),
      terminal_(isatty(STDERR_FILENO) == 1),
      seconds_per_step_(0) {}

Progress::~Progress() {
  if (width_ > 0) std::fputc('\n', stderr);
}

std::string Progress::line(const StepMetrics& m) const {
  const double eta = seconds_per_step_ * static_cast<double>(total_ - m.step);
  return fmt::format(
      "step {:>{}}/{}  loss {:.4f}  lr {:.2e}  grad {:.2f}  {:.0f} tok/s  {:.0f}% of matmul peak  {:.2f} GB  ETA {}",
      m.step, std::to_string(total_).size(), total_, m.loss, m.lr, m.grad_norm, m.tokens_per_second,
      100 * m.matmul_fraction, static_cast<double>(m.resident_bytes) * 1e-9, duration(eta));
}

void Progress::step(const StepMetrics& m) {
  constexpr double kSmoothing = 0.1;
  seconds_per_step_ =
      m.step == first_ + 1 ? m.seconds : seconds_per_step_ + kSmoothing * (m.seconds - seconds_per_step_);
  if (terminal_) {
    std::string text = line(m);
    const size_t width = text.size();
    if (width < width_) text.append(width_ - width, ' ');
    fmt::print(stderr, "\r{}", text);
    width_ = width;
  } else if (m.step == first_ + 1 || m.step == total_ || (every_ > 0 && m.step % every_ == 0)) {
    fmt::print(stderr, "{}\n", line(m));
  }
  std::fflush(stderr);
}

void Progress::note(const std::string& text) {
  if (width_ > 0) fmt::print(stderr, "\r{:{}}\r", "", width_);
  width_ = 0;
  fmt::print(stderr, "{}\n", text);
  std::fflush(stderr);
}

}  // namespace llmz::run
