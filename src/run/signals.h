#pragma once

#include <csignal>
#include <vector>

namespace llmz::run {

/// Turns SIGINT, SIGTERM, SIGHUP and SIGUSR1 into a request to stop after the current step, for as long as it lives. A
/// second signal of the same kind ends the process at once, as it would have without llmz. Signals that the process was
/// started to ignore stay ignored.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The signal that asked for the stop; 0 when none did.
  int received() const;

 private:
  static constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
  std::vector<struct sigaction> previous_;
};

}  // namespace llmz::run
