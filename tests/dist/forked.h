#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "llmz/core/error.h"

namespace llmz::testing {

/// How a rank of a test ended.
struct Ended {
  int code = -1;     ///< exit code; minus the signal that ended it
  std::string said;  ///< on stdout and stderr
};

/// A port that nobody listens on just now.
inline int free_port() {
  const int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  socklen_t length = sizeof address;
  if (bind(s, reinterpret_cast<sockaddr*>(&address), length) != 0) fail("no free port");
  getsockname(s, reinterpret_cast<sockaddr*>(&address), &length);
  close(s);
  return ntohs(address.sin_port);
}

/// The body of a forked process, whose output goes into `out`: 0 when it returned, 3 after an Error, whose text is
/// said.
[[noreturn]] inline void be_child(int out, const std::function<void()>& body) {
  dup2(out, STDOUT_FILENO);
  dup2(out, STDERR_FILENO);
  alarm(60);  // nothing that hangs outlives the test
  int code = 0;
  try {
    body();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    code = 3;
  }
  std::fflush(nullptr);
  _exit(code);
}

/// Processes running `body(rank)`, forked when it is made: no thread may have been started before.
class Forked {
 public:
  Forked(int ranks, const std::function<void(int)>& body) {
    std::cout.flush();  // or every child says it again
    std::fflush(nullptr);
    for (int r = 0; r < ranks; ++r) {
      int ends[2];
      if (pipe2(ends, O_CLOEXEC) != 0) fail("no pipe");
      const pid_t id = fork();
      if (id == 0) be_child(ends[1], [&] { body(r); });
      close(ends[1]);
      ids_.push_back(id);
      outputs_.push_back(ends[0]);
    }
  }
  pid_t id(int rank) const { return ids_[static_cast<size_t>(rank)]; }

  /// Waits for all of them.
  std::vector<Ended> wait() {
    std::vector<Ended> ended(ids_.size());
    for (size_t r = 0; r < ids_.size(); ++r) {
      char piece[4096];
      for (ssize_t n = 0; (n = read(outputs_[r], piece, sizeof piece)) > 0;) {
        ended[r].said.append(piece, static_cast<size_t>(n));
      }
      close(outputs_[r]);
      int status = 0;
      waitpid(ids_[r], &status, 0);
      ended[r].code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
    return ended;
  }

 private:
  std::vector<pid_t> ids_;
  std::vector<int> outputs_;
};

inline std::vector<Ended> run_forked(int ranks, const std::function<void(int)>& body) {
  return Forked(ranks, body).wait();
}

}  // namespace llmz::testing
