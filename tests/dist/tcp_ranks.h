#pragma once

#include <netinet/in.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "forked.h"
#include "llmz/dist/world.h"

namespace llmz::testing {

inline dist::WorldOptions at(int port, int rank, int size, double timeout = 20) {
  return {.rendezvous = fmt::format("tcp:127.0.0.1:{}", port), .rank = rank, .size = size, .timeout_seconds = timeout};
}

inline void check_all_well(const std::vector<Ended>& ended) {
  for (const Ended& e : ended) {
    CHECK(e.said == "");
    CHECK(e.code == 0);
  }
}

/// Lines that any of them said.
inline std::vector<std::string> lines(const std::vector<Ended>& ended) {
  std::vector<std::string> all;
  for (const Ended& e : ended) {
    for (size_t begin = 0; begin < e.said.size();) {
      const size_t end = std::min(e.said.find('\n', begin), e.said.size());
      all.push_back(e.said.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return all;
}

inline std::string joined(const std::vector<Ended>& ended) {
  std::string text;
  for (const std::string& line : lines(ended)) text += line + "\n";
  return text;
}

using Clock = std::chrono::steady_clock;
inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}
inline void rest(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

/// One attempt: the connection, or -1.
inline int try_connecting(int port, uint32_t address = INADDR_LOOPBACK) {
  const int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to = {};
  to.sin_family = AF_INET, to.sin_port = htons(static_cast<uint16_t>(port)), to.sin_addr.s_addr = htonl(address);
  const timeval patience = {10, 0};
  setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (connect(s, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0) return s;
  close(s);
  return -1;
}

/// A connection to what will listen there within ten seconds.
inline int connected(int port) {
  for (const auto begin = Clock::now(); seconds_since(begin) < 10; rest(0.01)) {
    const int s = try_connecting(port);
    if (s >= 0) return s;
  }
  fail("nobody listens on {}", port);
}

inline void await_listener(int port) { close(connected(port)); }

/// What comes back for a text, until the connection ends.
inline std::string answer_to(const std::string& text, int port) {
  const int s = connected(port);
  check(write(s, text.data(), text.size()) == static_cast<ssize_t>(text.size()), "nothing sent");
  std::string answer;
  char piece[1024];
  for (ssize_t n = 0; (n = read(s, piece, sizeof piece)) > 0;) answer.append(piece, static_cast<size_t>(n));
  close(s);
  return answer;
}

}  // namespace llmz::testing
