#include "src/dist/tcp_rendezvous.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <list>
#include <sstream>

namespace llmz::dist {
namespace {

constexpr int kProtocol = 2;
constexpr const char* kMagic = "llmz-world";
constexpr size_t kHelloBytes = 1024;                  // of fixed size: whatever else knocks does not send just this
constexpr auto kPatience = std::chrono::seconds(10);  // with a connection that does not say who it is

/// The secret of a run, "-" and more where there is one. Not an option: everybody on a machine can read those.
std::string own_token() {
  const char* said = std::getenv("LLMZ_RENDEZVOUS_TOKEN");
  const std::string token = said != nullptr ? said : "";
  const auto legible = [](unsigned char c) { return std::isgraph(c) != 0; };
  check(token.size() <= 256 && std::all_of(token.begin(), token.end(), legible),
        "LLMZ_RENDEZVOUS_TOKEN must be at most 256 letters, digits and signs, without a space");
  return "-" + token;
}

/// What a rank says first: one line, filled with zeros to kHelloBytes. All versions begin it with magic, version and
/// token.
struct Hello {
  int protocol = kProtocol;
  std::string token;
  int size = 0, rank = 0;
  std::string host, machine;

  std::string packed() const {
    std::string text = fmt::format("{} {} {} {} {} {} {}\n", kMagic, protocol, token, size, rank, host, machine);
    text.resize(kHelloBytes);
    return text;
  }
  /// False where it is not an llmz's. Of another version's nothing else is known.
  static bool parse(const std::string& text, Hello& hello) {
    std::istringstream in(text.substr(0, text.find('\n')));
    std::string magic;
    if (!(in >> magic >> hello.protocol >> hello.token) || magic != kMagic) return false;
    if (hello.protocol != kProtocol) return true;
    in >> hello.size >> hello.rank >> hello.host >> hello.machine;
    return in && hello.rank > 0 && hello.rank < hello.size;  // as a rank makes sure of its own
  }
};

Hello own_hello(const WorldOptions& options) {
  char name[256] = {};
  if (gethostname(name, sizeof name - 1) != 0 || name[0] == 0) std::snprintf(name, sizeof name, "unnamed");
  // Containers may have one name on many machines; the number of a kernel's start tells these apart.
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return {.token = own_token(),
          .size = options.size,
          .rank = options.rank,
          .host = name,
          .machine = std::string(name) + "/" + boot};
}

/// A connection that has not said all of its hello.
struct Visitor {
  Socket socket;
  std::string said;
  Clock::time_point until = Clock::now() + kPatience;
};

/// Rank 0's side.
class Reception {
 public:
  explicit Reception(const WorldOptions& options)
      : address_(parse_rendezvous(options.rendezvous)), size_(static_cast<size_t>(options.size)), hellos_(size_) {
    meeting_.peers.resize(size_);
    hellos_[0] = own_hello(options);
    timeout_ = options.timeout_seconds;
  }

  Meeting receive() {
    if (size_ > 1) {
      try {
        receive_all();
      } catch (const Error& e) {
        const Frame refusal = {kRefused, e.what()};
        tell_all(refusal);
        for (const Visitor& v : visitors_) v.socket.send(refusal.packed());
        throw;
      }
    }
    std::string table;
    for (const Hello& hello : hellos_) {
      meeting_.hosts.push_back(hello.host);
      meeting_.machines.push_back(hello.machine);
      table += hello.host + " " + hello.machine + "\n";
    }
    tell_all({kWelcome, table});
    return std::move(meeting_);
  }

 private:
  void receive_all() {
    const auto deadline =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_));
    const std::vector<Socket> listeners = Socket::listening(address_);
    while (came_ < size_) {
      if (Clock::now() >= deadline) too_late();
      wait(listeners, deadline);
      for (const Socket& listener : listeners) {
        if (Socket s = listener.accepted()) visitors_.push_back({.socket = std::move(s), .said = {}});
      }
      for (auto v = visitors_.begin(); v != visitors_.end();) v = hear(*v) ? std::next(v) : visitors_.erase(v);
    }
  }

  void wait(const std::vector<Socket>& listeners, Clock::time_point deadline) const {
    std::vector<pollfd> waiting;
    for (const Socket& listener : listeners) waiting.push_back({listener.fd(), POLLIN, 0});
    for (const Visitor& v : visitors_) waiting.push_back({v.socket.fd(), POLLIN, 0});
    poll(waiting.data(), waiting.size(), poll_time(deadline));
  }

  /// Whether to hear more of it.
  bool hear(Visitor& visitor) {
    char piece[kHelloBytes];
    const int64_t n = visitor.socket.receive(piece, kHelloBytes - visitor.said.size());
    if (n == Socket::kNothing && Clock::now() < visitor.until) return true;
    if (n > 0) visitor.said.append(piece, static_cast<size_t>(n));
    if (n > 0 && visitor.said.size() < kHelloBytes) return true;
    Hello hello;
    if (n <= 0 || !Hello::parse(visitor.said, hello)) {
      ++strangers_;
      return false;
    }
    const std::string& token = hellos_[0].token;
    const bool may_complain = token == "-" && hello.protocol != kProtocol;  // the first version had no token
    if (hello.token != token && !may_complain) {
      ++refused_;
      return false;
    }
    admit(visitor, hello);
    return false;
  }

  void admit(Visitor& visitor, const Hello& hello) {
    check_fits(hello);
    Socket& place = meeting_.peers[static_cast<size_t>(hello.rank)];
    check(!place, "two processes have --rank {} (on {} and {}); each of the {} needs its own, from 0 to {}", hello.rank,
          hellos_[static_cast<size_t>(hello.rank)].host, hello.host, size_, size_ - 1);
    place = std::move(visitor.socket);
    place.tune();
    hellos_[static_cast<size_t>(hello.rank)] = hello;
    ++came_;
  }

  void check_fits(const Hello& hello) const {
    check(hello.protocol == kProtocol, "one of the ranks has an llmz of another version than rank 0's ({})",
          hellos_[0].host);
    check(static_cast<size_t>(hello.size) == size_,
          "rank {} ({}) has --ranks {}, and rank 0 ({}) has --ranks {}; all need the same", hello.rank, hello.host,
          hello.size, hellos_[0].host, size_);
  }

  [[noreturn]] void too_late() const {
    std::string missing;
    for (size_t r = 1; r < size_; ++r) {
      if (!meeting_.peers[r]) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", r);
    }
    fail(
        "--rendezvous {}: after {:.0f} s {} of {} ranks have come; missing: {} (started with --rank and --ranks {}, "
        "and able to reach {}?{}{})",
        address_.str(), timeout_, came_, size_, missing, size_, hellos_[0].host,
        strangers_ > 0 ? fmt::format(" {} connections were not llmz's", strangers_) : "",
        refused_ > 0 ? fmt::format(" {} were refused: LLMZ_RENDEZVOUS_TOKEN is another there", refused_) : "");
  }

  void tell_all(const Frame& frame) const {
    for (const Socket& peer : meeting_.peers) {
      if (peer) peer.send(frame.packed());
    }
  }

  TcpAddress address_;
  size_t size_, came_ = 1;
  double timeout_ = 0;
  std::vector<Hello> hellos_;  ///< by rank
  std::list<Visitor> visitors_;
  int strangers_ = 0, refused_ = 0;
  Meeting meeting_;
};

/// Rank 0's answer. Nothing beyond it is read: what follows belongs to the run.
Frame answer_of(const Socket& socket, const TcpAddress& address, Clock::time_point deadline) {
  FrameReader reader;
  Frame frame;
  while (!reader.next(frame)) {
    check(socket.wait(deadline), "--rendezvous {}: connected, but the other ranks have not come in time",
          address.str());
    char byte = 0;
    const int64_t n = socket.receive(&byte, 1);
    check(n > 0 || n == Socket::kNothing,
          "--rendezvous {}: what listens there has closed the connection; rank 0 has ended, or has another "
          "LLMZ_RENDEZVOUS_TOKEN, or it is not llmz",
          address.str());
    if (n > 0) reader.append(&byte, 1);
  }
  check(frame.kind == kWelcome || frame.kind == kRefused, "--rendezvous {}: what listens there is not llmz",
        address.str());
  return frame;
}

Meeting join(const WorldOptions& options) {
  const TcpAddress address = parse_rendezvous(options.rendezvous);
  const Hello hello = own_hello(options);
  const auto timeout =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.timeout_seconds));
  Meeting meeting;
  meeting.peers.push_back(Socket::connected(address, Clock::now() + timeout));
  const Socket& leader = meeting.peers.front();
  leader.tune();
  leader.send(hello.packed());
  // Rank 0 may have begun to wait later, and is the one that knows who is missing.
  const Frame answer = answer_of(leader, address, Clock::now() + timeout + std::chrono::seconds(5));
  check(answer.kind == kWelcome, "{}", answer.text);
  std::istringstream table(answer.text);
  for (std::string host, machine; table >> host >> machine;) {
    meeting.hosts.push_back(host);
    meeting.machines.push_back(machine);
  }
  return meeting;
}

}  // namespace

Meeting rendezvous(const WorldOptions& options) {
  parse_rendezvous(options.rendezvous);
  check(options.rank >= 0 && options.size >= 1,
        "--rendezvous needs --rank R and --ranks N: the number of this process, from 0, and how many there are");
  check(options.rank < options.size, "--rank is {}, and with --ranks {} it must be from 0 to {}", options.rank,
        options.size, options.size - 1);
  return options.rank == 0 ? Reception(options).receive() : join(options);
}

}  // namespace llmz::dist
