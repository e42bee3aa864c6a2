#pragma once

namespace llmz::train {

/// Turns SIGINT, SIGTERM and SIGUSR1 into a request to stop after the current step, for as long as it lives. A second
/// signal of the same kind ends the process at once, as it would have without llmz.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The signal that asked for the stop; 0 when none did.
  int received() const;
};

}  // namespace llmz::train
