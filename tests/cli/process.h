#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace llmz::testing {

/// How a program ended, and what it said.
struct Outcome {
  int exit_code = -1;  ///< -1 when a signal ended it
  int signal = 0;      ///< that signal
  std::string out, err;

  /// The last line on standard error, without its line end.
  std::string last_error_line() const;
  int error_lines() const;
};

struct ProcessOptions {
  uint64_t file_size_limit = 0;  ///< no file grows beyond so many bytes: a full disk. 0: no limit
  std::string program = {};      ///< another than llmz, looked up in PATH
  std::string environment = {};  ///< one more of its variables, NAME=value
};

/// llmz, or another program, in a process of its own, its working directory `folder`.
class Process {
 public:
  Process(const std::filesystem::path& folder, const std::vector<std::string>& arguments,
          const ProcessOptions& options = {});
  ~Process();  ///< kills it where it still runs
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t id() const { return pid_; }
  bool running();
  void send(int signal);
  Outcome wait();

 private:
  void take_status(int status);
  std::filesystem::path out_file_, err_file_;
  pid_t pid_ = -1;
  bool ended_ = false;
  Outcome outcome_;
};

/// Programs started from now on see no GPU, in any build.
void hide_gpus();

/// Runs it to its end.
Outcome run_llmz(const std::filesystem::path& folder, const std::vector<std::string>& arguments,
                 const ProcessOptions& options = {});

}  // namespace llmz::testing
