#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include "src/dist/implementations.h"
#include "src/dist/tcp_rendezvous.h"

namespace llmz::dist {
namespace {

constexpr auto kFarewell = std::chrono::seconds(1);          // for the others to say goodbye too
constexpr auto kLastWords = std::chrono::milliseconds(300);  // for them to hear of an abort
constexpr char kGather = 'g', kMax = 'm', kSum = 's';        // what a message is part of

/// The connection to another rank.
struct Peer {
  int rank = 0;
  Socket socket;
  std::mutex sending;             ///< frames do not interleave
  FrameReader reader;             ///< of the watch thread
  std::deque<std::string> inbox;  ///< these under TcpWorld::mutex_
  bool left = false;              ///< said goodbye
  bool closed = false;            ///< nothing more comes
};

template <class T>
std::string bytes_of(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
template <class T>
T from_bytes(const std::string& bytes) {
  T value;
  check(bytes.size() == sizeof value, "a message of {} bytes where {} belong", bytes.size(), sizeof value);
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

/// A star around rank 0: the others send it their part of a call and get the result back. One thread reads everything
/// that comes, so that a rank that died, or one that gives up, ends this process whatever it is busy with.
class TcpWorld final : public World {
 public:
  TcpWorld(const WorldOptions& options, Meeting meeting) : World(options.rank, options.size) {
    std::vector<int> machines;
    for (const std::string& machine : meeting.machines) {
      const auto first = std::find(meeting.machines.begin(), meeting.machines.end(), machine);
      machines.push_back(static_cast<int>(first - meeting.machines.begin()));
    }
    set_hosts(std::move(meeting.hosts), std::move(machines));
    for (size_t i = 0; i < meeting.peers.size(); ++i) {
      if (!meeting.peers[i]) continue;
      peers_.push_back(std::make_unique<Peer>());
      peers_.back()->rank = static_cast<int>(i);
      peers_.back()->socket = std::move(meeting.peers[i]);
    }
    if (peers_.empty()) return;
    wake_ = Socket(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    check(static_cast<bool>(wake_), "this process can open no more files");
    start_watching();
  }

  ~TcpWorld() override {
    if (peers_.empty()) return;
    ending_ = true;
    for (const auto& peer : peers_) {
      tell(*peer, kGoodbye);
      peer->socket.end_sending();
    }
    {
      std::unique_lock lock(mutex_);
      news_.wait_for(lock, kFarewell, [&] {
        return std::all_of(peers_.begin(), peers_.end(), [](const auto& p) { return p->left || p->closed; });
      });
    }
    request(Request::stop);
    watch_.join();
  }

  std::string_view name() const override { return "TCP"; }

  std::vector<std::string> all_gather(const std::string& mine) override {
    FrameReader reader;
    const std::string all = exchange(kGather, mine, [](const std::vector<std::string>& parts) {
      std::string packed;
      for (const std::string& part : parts) packed += Frame{kMessage, part}.packed();
      return packed;
    });
    reader.append(all.data(), all.size());
    std::vector<std::string> parts;
    for (Frame frame; reader.next(frame);) parts.push_back(std::move(frame.text));
    return parts;
  }

  int64_t max(int64_t mine) override {
    return from_bytes<int64_t>(exchange(kMax, bytes_of(mine), [](const std::vector<std::string>& parts) {
      int64_t most = from_bytes<int64_t>(parts.front());
      for (const std::string& part : parts) most = std::max(most, from_bytes<int64_t>(part));
      return bytes_of(most);
    }));
  }

  /// Rank 0 adds in the order of ranks, and all get its result.
  double sum(double mine) override {
    return from_bytes<double>(exchange(kSum, bytes_of(mine), [](const std::vector<std::string>& parts) {
      double total = 0;
      for (const std::string& part : parts) total += from_bytes<double>(part);
      return bytes_of(total);
    }));
  }

  /// The watch thread does it: it alone knows what has been read.
  [[noreturn]] void abort() override {
    if (peers_.empty()) std::_Exit(1);
    request(Request::abort);
    for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
  }

 private:
  enum class Request { none, stop, abort };

  void request(Request what) {
    request_ = what;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake_.fd(), &one, sizeof one);
  }

  std::unique_ptr<Communicator> make_cpu_communicator() override {
    check(size() == 1, "on the CPU several ranks need MPI: start with mpirun; --rendezvous is for GPUs with NCCL");
    return std::make_unique<DryCommunicator>();
  }

  /// Every rank's part goes to rank 0, and what `combine` makes of them to every rank.
  template <class Combine>
  std::string exchange(char call, const std::string& mine, Combine&& combine) {
    if (rank() != 0) {
      send(*peers_.front(), call, mine);
      return take(*peers_.front(), call);
    }
    std::vector<std::string> parts = {mine};
    for (const auto& peer : peers_) parts.push_back(take(*peer, call));
    const std::string result = combine(parts);
    for (const auto& peer : peers_) send(*peer, call, result);
    return result;
  }

  void send(Peer& peer, char call, const std::string& text) {
    const std::lock_guard lock(peer.sending);
    // Where it fails the watch thread ends this process, or knows of a goodbye, of which `take` tells.
    peer.socket.send(Frame{kMessage, call + text}.packed());
  }

  std::string take(Peer& peer, char call) {
    std::unique_lock lock(mutex_);
    news_.wait(lock, [&] { return !peer.inbox.empty() || peer.left; });
    check(!peer.inbox.empty(), "{} has ended while {} waits for it: the ranks have not done the same", who(peer.rank),
          World::who());
    std::string text = std::move(peer.inbox.front());
    peer.inbox.pop_front();
    check(!text.empty() && text[0] == call,
          "{} makes another call ('{}') than {} ('{}'): the ranks have not done the same", who(peer.rank),
          text.substr(0, 1), World::who(), call);
    return text.substr(1);
  }

  std::string who(int r) const { return fmt::format("rank {} of {} ({})", r, size(), hosts()[static_cast<size_t>(r)]); }

  // --- the watch thread ---------------------------------------------------------------------------------------------

  /// Signals stay with the threads that were there before.
  void start_watching() {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    watch_ = std::thread([this] { watch(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void watch() {
    for (;;) {
      std::vector<pollfd> waiting = {{wake_.fd(), POLLIN, 0}};
      for (const auto& peer : peers_) waiting.push_back({peer->closed ? -1 : peer->socket.fd(), POLLIN, 0});
      poll(waiting.data(), waiting.size(), -1);
      if (request_ == Request::stop) return;
      if (request_ == Request::abort) end_all();
      for (size_t i = 0; i < peers_.size(); ++i) {
        if (waiting[i + 1].revents != 0) hear(*peers_[i]);
      }
    }
  }

  void hear(Peer& peer) {
    char piece[1 << 14];
    int64_t n = 0;
    while ((n = peer.socket.receive(piece, sizeof piece)) > 0) peer.reader.append(piece, static_cast<size_t>(n));
    const std::lock_guard lock(mutex_);
    try {
      for (Frame frame; peer.reader.next(frame);) heard(peer, frame);
    } catch (const Error&) {
      n = -1;  // not a frame
    }
    if (n != Socket::kNothing) {
      peer.closed = true;
      if (!peer.left && !ending_) lost(peer);
    }
    news_.notify_all();
  }

  void heard(Peer& peer, Frame& frame) {
    switch (frame.kind) {
      case kMessage: peer.inbox.push_back(std::move(frame.text)); break;
      case kGoodbye: peer.left = true; break;
      case kAbort: end_all();
    }
  }

  /// One of the survivors speaks: rank 0, and where that is lost the first rank of each host that is left.
  [[noreturn]] void lost(const Peer& peer) {
    const bool beside_0 = local_rank() == rank();  // then all ranks below this one are on its host, rank 0 too
    if (rank() == 0 || local_rank() == (beside_0 ? 1 : 0)) {
      const std::string line =
          fmt::format("llmz: {} is gone: its process was killed or its host is not reachable\n", who(peer.rank));
      [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
    }
    end_all();
  }

  /// Tells the others to end, and ends. A connection that is closed with bytes unread is reset, which could overtake
  /// the word: so what comes is read until they are gone.
  [[noreturn]] void end_all() {
    const auto deadline = Clock::now() + kLastWords;
    for (const auto& peer : peers_) {
      tell(*peer, kAbort);
      peer->socket.end_sending();
    }
    for (const auto& peer : peers_) {
      char piece[1 << 14];
      while (peer->socket.wait(deadline) && peer->socket.receive(piece, sizeof piece) > 0) continue;
    }
    std::_Exit(1);
  }

  /// A large message may be on its way, to a peer that takes nothing more: then this one is left out.
  void tell(Peer& peer, char kind) {
    const auto deadline = Clock::now() + kLastWords;
    std::unique_lock lock(peer.sending, std::try_to_lock);
    while (!lock.owns_lock() && Clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      [[maybe_unused]] const bool locked = lock.try_lock();
    }
    if (lock.owns_lock()) peer.socket.send_now(Frame{kind, ""}.packed());
  }

  std::vector<std::unique_ptr<Peer>> peers_;
  std::mutex mutex_;
  std::condition_variable news_;
  Socket wake_;
  std::atomic<Request> request_ = Request::none;
  std::atomic<bool> ending_ = false;
  std::thread watch_;
};

}  // namespace

std::unique_ptr<World> make_tcp_world(const WorldOptions& options) {
  Meeting meeting = rendezvous(options);
  return std::make_unique<TcpWorld>(options, std::move(meeting));
}

}  // namespace llmz::dist
