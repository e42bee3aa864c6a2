#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace llmz::dist {

using Clock = std::chrono::steady_clock;

/// "tcp:host:port", "tcp:[v6 address]:port".
struct TcpAddress {
  std::string host, port;
  std::string str() const { return "tcp:" + host + ":" + port; }
};
/// Error that says what a rendezvous looks like.
TcpAddress parse_rendezvous(const std::string& text);

/// A TCP socket, closed when it goes. Failures of the system are Errors, a peer that is gone is an answer.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Socket& operator=(Socket&& other) noexcept;
  ~Socket() { close(); }

  /// Takes connections at those addresses of the host that are this machine's, by IPv4 and IPv6. On every interface
  /// where none is, the name is not known here, or may be known by another address elsewhere. Error when the port is in
  /// use.
  static std::vector<Socket> listening(const TcpAddress& address);
  /// Connects, again and again until `deadline`. Error when the host is not known or nobody took the connection.
  static Socket connected(const TcpAddress& address, Clock::time_point deadline);
  /// The next connection of a listening socket; absent where there is none after all.
  Socket accepted() const;

  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void close();
  /// No small message waits for a larger one, and a host that vanished is noticed after half a minute.
  void tune() const;
  /// The other side reads an end after what was sent.
  void end_sending() const;

  /// False when the peer is gone.
  bool send(const void* data, size_t bytes) const;
  /// The same for a few bytes and without waiting.
  bool send_now(const std::string& text) const;
  bool send(const std::string& text) const { return send(text.data(), text.size()); }
  /// What is there, at most `bytes`: 0 at the peer's end, -1 when the connection broke, kNothing when there is nothing.
  static constexpr int64_t kNothing = -2;
  int64_t receive(void* data, size_t bytes) const;
  /// Waits until there is something to receive (or the end); false at the deadline.
  bool wait(Clock::time_point deadline) const;

 private:
  int fd_ = -1;
};

/// Milliseconds until then as poll wants them, from 0 to a second.
int poll_time(Clock::time_point deadline);

/// Puts text into frames and finds them again in a stream: one byte of kind, eight of length, the text.
struct Frame {
  char kind = 0;
  std::string text;
  std::string packed() const;
};
class FrameReader {
 public:
  void append(const char* data, size_t bytes) { buffer_.append(data, bytes); }
  /// Takes the first frame out, when all of it is there. Error when what is there is no frame.
  bool next(Frame& frame);

 private:
  std::string buffer_;
  size_t begin_ = 0;  // what was taken before is dropped when there is more of it than of the rest
};

/// Frames have these kinds.
constexpr char kWelcome = 'w', kRefused = 'r', kMessage = 'm', kGoodbye = 'g', kAbort = 'a';

}  // namespace llmz::dist
