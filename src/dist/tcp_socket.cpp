#include "src/dist/tcp_socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "llmz/core/error.h"

namespace llmz::dist {
namespace {

constexpr size_t kLongestFrame = size_t{1} << 30;
constexpr size_t kHeader = 9;

void set_option(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); }

int port_number(const std::string& text) {
  int port = 0;
  const auto [last, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && last == text.data() + text.size() ? port : -1;
}

using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

/// Of the host, with getaddrinfo's flags; none, with its error.
Addresses addresses_of(const std::string& host, const std::string& port, int flags, int* error = nullptr) {
  addrinfo wanted = {};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = flags;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(host.c_str(), port.c_str(), &wanted, &found);
  if (error != nullptr) *error = failed;
  return {failed == 0 ? found : nullptr, freeaddrinfo};
}

bool same(const addrinfo& a, const addrinfo& b) {
  return a.ai_addrlen == b.ai_addrlen && std::memcmp(a.ai_addr, b.ai_addr, a.ai_addrlen) == 0;
}

bool is_loopback(const addrinfo& a) {
  if (a.ai_family == AF_INET6) {
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(a.ai_addr)->sin6_addr);
  }
  return a.ai_family == AF_INET &&
         ntohl(reinterpret_cast<const sockaddr_in*>(a.ai_addr)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

/// A machine's own name may stand for a loopback address on itself (Debian's /etc/hosts: 127.0.1.1), and elsewhere for
/// the one that the others will come to.
bool only_named_so_here(const TcpAddress& address, const addrinfo* found) {
  if (address.host == "localhost" || addresses_of(address.host, address.port, AI_NUMERICHOST)) return false;
  for (; found != nullptr; found = found->ai_next) {
    if (is_loopback(*found)) return true;
  }
  return false;
}

/// 0 or errno. The IPv6 address of every interface takes IPv4 along.
int try_listening(const addrinfo& at, Socket& result) {
  Socket s(socket(at.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!s) return errno;
  set_option(s.fd(), SOL_SOCKET, SO_REUSEADDR, 1);  // an earlier run's connections may still be winding down
  if (at.ai_family == AF_INET6) set_option(s.fd(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (bind(s.fd(), at.ai_addr, at.ai_addrlen) != 0 || listen(s.fd(), SOMAXCONN) != 0) return errno;
  result = std::move(s);
  return 0;
}

/// On all of these addresses that are this machine's; the last failure is `error`, which a port in use ends.
std::vector<Socket> listen_on(const addrinfo* first, int& error) {
  std::vector<Socket> listeners;
  for (const addrinfo* a = first; a != nullptr; a = a->ai_next) {
    const addrinfo* earlier = first;
    while (earlier != a && !same(*earlier, *a)) earlier = earlier->ai_next;
    if (earlier != a) continue;  // /etc/hosts may name one twice
    Socket s;
    const int failed = try_listening(*a, s);
    if (failed != 0) error = failed;
    if (failed == EADDRINUSE) return {};
    if (s) listeners.push_back(std::move(s));
  }
  return listeners;
}

Addresses resolve(const TcpAddress& address, Clock::time_point deadline) {
  for (;;) {
    int error = 0;
    Addresses found = addresses_of(address.host, address.port, 0, &error);
    if (error == 0) return found;
    if (error != EAI_AGAIN || Clock::now() > deadline) {
      fail("--rendezvous {}: the host '{}' is not known here ({}); name the host of rank 0, or its address",
           address.str(), address.host, gai_strerror(error));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
}

/// Where nobody listens, and the system gives this end the very port that it connects to, a socket connects to itself.
bool meets_itself(const Socket& s) {
  sockaddr_storage here = {}, there = {};
  socklen_t here_length = sizeof here, there_length = sizeof there;
  return getsockname(s.fd(), reinterpret_cast<sockaddr*>(&here), &here_length) == 0 &&
         getpeername(s.fd(), reinterpret_cast<sockaddr*>(&there), &there_length) == 0 && here_length == there_length &&
         std::memcmp(&here, &there, here_length) == 0;
}

/// One attempt of at most some seconds; absent, with errno, when it fails.
Socket try_connecting(const addrinfo& to, Clock::time_point deadline) {
  Socket s(socket(to.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!s) return {};
  set_option(s.fd(), SOL_SOCKET, SO_REUSEADDR, 1);  // one that met itself does not keep rank 0 from its port
  if (connect(s.fd(), to.ai_addr, to.ai_addrlen) != 0 && errno != EINPROGRESS) return {};
  const auto end = std::min(deadline, Clock::now() + std::chrono::seconds(5));
  pollfd waiting = {s.fd(), POLLOUT, 0};
  while (poll(&waiting, 1, poll_time(end)) <= 0) {
    if (Clock::now() < end) continue;
    errno = ETIMEDOUT;
    return {};
  }
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(s.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error == 0 && meets_itself(s)) error = ECONNREFUSED;
  errno = error;
  return error == 0 ? std::move(s) : Socket();
}

}  // namespace

TcpAddress parse_rendezvous(const std::string& text) {
  constexpr const char* kForm = "it must be tcp:HOST:PORT, HOST the one that rank 0 runs on";
  check(text.starts_with("tcp:"), "--rendezvous is '{}'; {}", text, kForm);
  const size_t colon = text.rfind(':');
  check(colon > 4, "--rendezvous is '{}'; {}", text, kForm);
  TcpAddress address{text.substr(4, colon - 4), text.substr(colon + 1)};
  if (address.host.size() > 2 && address.host.front() == '[' && address.host.back() == ']') {
    address.host = address.host.substr(1, address.host.size() - 2);
  } else {
    check(address.host.find(':') == std::string::npos,
          "--rendezvous is '{}'; {}, and an IPv6 address in brackets: tcp:[::1]:29500", text, kForm);
  }
  const int port = port_number(address.port);
  check(port >= 1 && port <= 65535, "--rendezvous is '{}'; its port '{}' is no number from 1 to 65535", text,
        address.port);
  return address;
}

int poll_time(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left + 1, 0, 1000));
}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

void Socket::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

std::vector<Socket> Socket::listening(const TcpAddress& address) {
  std::vector<Socket> listeners;
  int error = 0;
  const Addresses named = addresses_of(address.host, address.port, 0);
  if (!only_named_so_here(address, named.get())) listeners = listen_on(named.get(), error);
  for (const char* any : {"::", "0.0.0.0"}) {  // the second where a machine has no IPv6
    if (!listeners.empty() || error == EADDRINUSE) break;
    listeners = listen_on(addresses_of(any, address.port, AI_NUMERICHOST).get(), error);
  }
  check(error != EADDRINUSE,
        "--rendezvous {}: port {} is in use on this host, by an earlier run or a second process with --rank 0; choose "
        "another port",
        address.str(), address.port);
  check(!listeners.empty(), "--rendezvous {}: rank 0 cannot listen on port {}: {}", address.str(), address.port,
        std::strerror(error));
  return listeners;
}

Socket Socket::connected(const TcpAddress& address, Clock::time_point deadline) {
  const Addresses addresses = resolve(address, deadline);
  for (;;) {
    int error = 0;
    for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
      Socket s = try_connecting(*a, deadline);
      if (s) return s;
      error = errno;
    }
    check(Clock::now() < deadline,
          "--rendezvous {}: rank 0 takes no connection there ({}); is it running, is the address right, and does the "
          "network let the port through?",
          address.str(), std::strerror(error));
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

Socket Socket::accepted() const { return Socket(accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)); }

void Socket::tune() const {
  set_option(fd_, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd_, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd_, IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set_option(fd_, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set_option(fd_, IPPROTO_TCP, TCP_KEEPCNT, 4);
  set_option(fd_, IPPROTO_TCP, TCP_USER_TIMEOUT, 30000);
}

void Socket::end_sending() const { shutdown(fd_, SHUT_WR); }

bool Socket::send(const void* data, size_t bytes) const {
  const auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::send(fd_, p, bytes, MSG_NOSIGNAL);
    if (n >= 0) {
      p += n, bytes -= static_cast<size_t>(n);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      pollfd waiting = {fd_, POLLOUT, 0};
      poll(&waiting, 1, 1000);
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

bool Socket::send_now(const std::string& text) const {
  return ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(text.size());
}

int64_t Socket::receive(void* data, size_t bytes) const {
  const ssize_t n = recv(fd_, data, bytes, MSG_DONTWAIT);
  if (n >= 0) return n;
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? kNothing : -1;
}

bool Socket::wait(Clock::time_point deadline) const {
  for (;;) {
    pollfd waiting = {fd_, POLLIN, 0};
    if (poll(&waiting, 1, poll_time(deadline)) > 0) return true;
    if (Clock::now() >= deadline) return false;
  }
}

std::string Frame::packed() const {
  std::string bytes(kHeader, kind);
  const uint64_t length = text.size();
  for (size_t i = 0; i < 8; ++i) bytes[i + 1] = static_cast<char>(length >> (8 * i) & 0xff);
  return bytes + text;
}

bool FrameReader::next(Frame& frame) {
  const size_t there = buffer_.size() - begin_;
  if (there < kHeader) return false;
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) {
    length |= uint64_t{static_cast<unsigned char>(buffer_[begin_ + i + 1])} << (8 * i);
  }
  check(length <= kLongestFrame, "what came by TCP is not from llmz");
  if (there < kHeader + length) return false;
  frame = {buffer_[begin_], buffer_.substr(begin_ + kHeader, length)};
  begin_ += kHeader + length;
  if (begin_ > buffer_.size() / 2) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  return true;
}

}  // namespace llmz::dist
