#include "process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "llmz/core/error.h"
#include "llmz/io/files.h"

namespace llmz::testing {
namespace {

/// Files that take a process's output stand beside its folder, not in it: tests compare what is in there.
std::filesystem::path output_file(const std::filesystem::path& folder, const char* kind) {
  static std::atomic<int> count = 0;
  return folder.parent_path() / fmt::format("{}.{}.{}.{}", folder.filename().string(), kind, ::getpid(), ++count);
}

/// In the child, between fork and exec: calls that are safe there only.
[[noreturn]] void become(const char* folder, char* const* arguments, char* const* environment, int out, int err,
                         uint64_t file_size_limit) {
  if (::chdir(folder) != 0) ::_exit(126);
  ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(err, STDERR_FILENO);
  if (file_size_limit > 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{file_size_limit, file_size_limit};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ::execvpe(arguments[0], arguments, environment);
  ::_exit(127);
}

int create(const std::filesystem::path& file) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  check(fd >= 0, "{} cannot be made", file.string());
  return fd;
}

std::string take_file(const std::filesystem::path& file) {
  std::string text = io::read_text(file);
  std::filesystem::remove(file);
  return text;
}

}  // namespace

std::string Outcome::last_error_line() const {
  const size_t end = err.find_last_not_of('\n');
  if (end == std::string::npos) return "";
  const size_t before = err.rfind('\n', end);
  return err.substr(before == std::string::npos ? 0 : before + 1,
                    end - (before == std::string::npos ? 0 : before + 1) + 1);
}

int Outcome::error_lines() const { return static_cast<int>(std::count(err.begin(), err.end(), '\n')); }

Process::Process(const std::filesystem::path& folder, const std::vector<std::string>& arguments,
                 const ProcessOptions& options)
    : out_file_(output_file(folder, "out")), err_file_(output_file(folder, "err")) {
  std::vector<std::string> words = {options.program.empty() ? LLMZ_PROGRAM : options.program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers, variables;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  std::string added = options.environment;
  if (!added.empty()) variables.push_back(added.data());  // before one of that name: the first is found
  for (char** variable = environ; *variable != nullptr; ++variable) variables.push_back(*variable);
  variables.push_back(nullptr);
  const int out = create(out_file_), err = create(err_file_);
  pid_ = ::fork();
  if (pid_ == 0) become(folder.c_str(), pointers.data(), variables.data(), out, err, options.file_size_limit);
  ::close(out);
  ::close(err);
  check(pid_ > 0, "cannot start a process");
}

Process::~Process() {
  if (!ended_) {
    send(SIGKILL);
    int status = 0;
    ::waitpid(pid_, &status, 0);
  }
  std::error_code ignored;
  std::filesystem::remove(out_file_, ignored);
  std::filesystem::remove(err_file_, ignored);
}

void Process::take_status(int status) {
  ended_ = true;
  if (WIFEXITED(status)) outcome_.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome_.signal = WTERMSIG(status);
}

bool Process::running() {
  int status = 0;
  if (!ended_ && ::waitpid(pid_, &status, WNOHANG) == pid_) take_status(status);
  return !ended_;
}

void Process::send(int signal) { ::kill(pid_, signal); }

Outcome Process::wait() {
  int status = 0;
  if (!ended_ && ::waitpid(pid_, &status, 0) == pid_) take_status(status);
  outcome_.out = take_file(out_file_);
  outcome_.err = take_file(err_file_);
  return outcome_;
}

void hide_gpus() {
  ::setenv("CUDA_VISIBLE_DEVICES", "", 1);
  ::setenv("LLMZ_EMULATED_GPUS", "0", 1);
}

Outcome run_llmz(const std::filesystem::path& folder, const std::vector<std::string>& arguments,
                 const ProcessOptions& options) {
  return Process(folder, arguments, options).wait();
}

}  // namespace llmz::testing
