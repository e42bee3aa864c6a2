// A wire with a latency between two network namespaces, for kernels without netem.
//   delay NAMESPACE NAMESPACE DEVICE SECONDS
// Makes a TUN device of that name in each and hands what one sends to the other so many seconds later, until it is
// killed; says "ready" once both are there. Rates are the business of the devices' queues.
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void die(const std::string& what) {
  std::perror(what.c_str());
  std::exit(1);
}

/// A device in a namespace; this process stays there.
int open_device(const std::string& space, const char* name) {
  const std::string path = "/run/netns/" + space;
  const int there = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (there < 0 || setns(there, CLONE_NEWNET) != 0) die(path);
  close(there);
  const int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (device < 0) die("/dev/net/tun");
  ifreq request = {};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (ioctl(device, TUNSETIFF, &request) != 0) die(name);
  return device;
}

struct Packet {
  Clock::time_point due;
  std::vector<char> bytes;
};

/// What is under way from one device to the other.
class Direction {
 public:
  Direction(int from, int to, Clock::duration delay) : from_(from), to_(to), delay_(delay) {}

  void take() {
    char buffer[1 << 16];
    for (ssize_t n = 0; (n = read(from_, buffer, sizeof buffer)) > 0;) {
      queue_.push_back({Clock::now() + delay_, {buffer, buffer + n}});
    }
  }
  void deliver() {
    for (; !queue_.empty() && queue_.front().due <= Clock::now(); queue_.pop_front()) {
      const auto& bytes = queue_.front().bytes;
      if (write(to_, bytes.data(), bytes.size()) < 0 && errno == ENOBUFS) continue;  // a full queue drops, as a wire
    }
  }
  /// Until something is due.
  Clock::duration left() const {
    return queue_.empty() ? Clock::duration(std::chrono::hours(1)) : queue_.front().due - Clock::now();
  }

 private:
  int from_, to_;
  Clock::duration delay_;
  std::deque<Packet> queue_;
};

}  // namespace

int main(int count, char** words) {
  if (count != 5) return 2;
  const auto delay = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::atof(words[4])));
  prctl(PR_SET_TIMERSLACK, 1);  // else Linux wakes sleepers up to 50 microseconds late
  const int a = open_device(words[1], words[3]), b = open_device(words[2], words[3]);
  Direction there(a, b, delay), back(b, a, delay);
  std::puts("ready");
  std::fflush(stdout);
  for (;;) {
    const auto left = std::max(std::min(there.left(), back.left()), Clock::duration(0));
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    const timespec timeout = {seconds.count(), std::chrono::nanoseconds(left - seconds).count()};
    pollfd devices[] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
    ppoll(devices, 2, &timeout, nullptr);
    there.take();
    back.take();
    there.deliver();
    back.deliver();
  }
}
