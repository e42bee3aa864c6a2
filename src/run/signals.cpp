#include "src/run/signals.h"

#include <atomic>
#include <csignal>

namespace llmz::run {
namespace {

// A signal handler can reach nothing but a static object.
std::atomic<int> received_signal = 0;
static_assert(std::atomic<int>::is_always_lock_free);

void on_signal(int signal) {
  received_signal = signal;
  std::signal(signal, SIG_DFL);
}

}  // namespace

StopSignals::StopSignals() {
  received_signal = 0;
  for (int signal : kSignals) {
    struct sigaction action = {};
    sigaction(signal, nullptr, &action);
    previous_.push_back(action);
    if (action.sa_handler == SIG_IGN) continue;  // as nohup set it
    action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigaction(signal, &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < previous_.size(); ++i) sigaction(kSignals[i], &previous_[i], nullptr);
}

int StopSignals::received() const { return received_signal; }

}  // namespace llmz::run
