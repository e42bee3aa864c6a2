#pragma once

#include <string>
#include <vector>

namespace llmz::report {

enum class State {
  ok,
  missing,  ///< not there, and llmz works without it
  warning,  ///< works, but worse than it could
  broken    ///< llmz needs it and cannot use it
};

/// One thing that `llmz doctor` looked at.
struct Finding {
  State state = State::ok;
  std::string name;    // "memory"
  std::string what;    // what is there
  std::string effect;  // what it gives, or how to mend it
};

const char* state_name(State state);

/// Processor, threads, memory, disk, and how fast they are with `threads` threads, which this process takes where
/// nobody says another number; takes a second or two.
std::vector<Finding> examine_machine(int threads);
/// What llmz is made of and runs with: its own build, libraries, GPUs, several processes.
std::vector<Finding> examine_software();

}  // namespace llmz::report
