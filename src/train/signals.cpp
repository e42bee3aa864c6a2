#include "llmz/train/signals.h"

#include <csignal>

namespace llmz::train {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGUSR1};

// A signal handler can reach nothing but a static object.
volatile std::sig_atomic_t received_signal = 0;

void on_signal(int signal) {
  received_signal = signal;
  std::signal(signal, SIG_DFL);
}

}  // namespace

StopSignals::StopSignals() {
  received_signal = 0;
  for (int signal : kSignals) std::signal(signal, on_signal);
}

StopSignals::~StopSignals() {
  for (int signal : kSignals) std::signal(signal, SIG_DFL);
}

int StopSignals::received() const { return received_signal; }

}  // namespace llmz::train
