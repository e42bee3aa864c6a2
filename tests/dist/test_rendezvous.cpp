#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <fstream>

#include "errors.h"
#include "tcp_ranks.h"

using namespace llmz;
using namespace llmz::dist;
using namespace llmz::testing;

TEST_CASE("TCP: rank 0 may start last") {
  const int port = free_port();
  check_all_well(run_forked(3, [&](int r) {
    if (r == 0) rest(1);
    make_world(at(port, r, 3))->barrier();
  }));
}

TEST_CASE("TCP: rank 0 listens where it is told, and everywhere for what is not this machine's") {
  constexpr uint32_t kOtherLoopback = INADDR_LOOPBACK + 1;
  const auto everywhere = [&](const std::string& host, bool expected) {
    INFO(host);
    const int port = free_port();
    const auto there = [&, port](int rank) {
      return WorldOptions{.rendezvous = fmt::format("tcp:{}:{}", host, port), .rank = rank, .size = 2};
    };
    Forked leader(1, [&](int) { make_world(there(0)); });
    await_listener(port);
    const int s = try_connecting(port, kOtherLoopback);
    CHECK((s >= 0) == expected);
    if (s >= 0) close(s);
    check_all_well(run_forked(1, [&](int) { make_world(at(port, 1, 2)); }));
    check_all_well(leader.wait());
  };
  everywhere("127.0.0.1", false);
  everywhere("localhost", false);
  everywhere("0.0.0.0", true);
  everywhere("203.0.113.77", true);  // kept for examples
}

TEST_CASE("TCP: a world by IPv6") {
  const int s = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 address = {};
  address.sin6_family = AF_INET6, address.sin6_addr = in6addr_loopback;
  const bool there = s >= 0 && bind(s, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  close(s);
  if (!there) {
    WARN("not tested: this machine has no ::1");
    return;
  }
  const int port = free_port();
  check_all_well(run_forked(3, [&](int r) {
    make_world({.rendezvous = fmt::format("tcp:[::1]:{}", port), .rank = r, .size = 3})->barrier();
  }));
}

/// Puts this process into a network of its own, where a connection to `port` begins at that same port.
bool alone_with_port(int port) {
  if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return false;
  const int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ifreq loopback = {};
  std::snprintf(loopback.ifr_name, sizeof loopback.ifr_name, "lo");
  loopback.ifr_flags = IFF_UP;
  const bool up = ioctl(s, SIOCSIFFLAGS, &loopback) == 0;
  close(s);
  std::ofstream range("/proc/sys/net/ipv4/ip_local_port_range");
  range << port << " " << port + 1 << std::endl;
  return up && range.good();
}

TEST_CASE("TCP: a rank that waits for rank 0 does not take itself for it") {
  constexpr int kPort = 34567, kNotAllowed = 77;
  const std::vector<Ended> ended = run_forked(1, [](int) {
    if (!alone_with_port(kPort)) _exit(kNotAllowed);
    const int s = try_connecting(kPort);
    check(s >= 0, "no connection to itself: nothing is tested");
    const linger reset = {1, 0};  // so that the port is free at once
    setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(s);
    const std::vector<Ended> ranks = run_forked(2, [](int r) {
      if (r == 0) rest(1);
      make_world(at(kPort, r, 2))->barrier();
    });
    for (const Ended& rank : ranks) check(rank.code == 0, "{}", rank.said);
  });
  if (ended[0].code == kNotAllowed) {
    WARN("not tested: this user may not make a network");
    return;
  }
  check_all_well(ended);
}

TEST_CASE("TCP: what is wrong with flags") {
  const auto with = [](const std::string& rendezvous, int rank, int size) {
    return make_world({.rendezvous = rendezvous, .rank = rank, .size = size, .timeout_seconds = 1});
  };
  for (const char* text : {"host:29500", "tcp:", "tcp:host", "tcp::29500", "udp:host:1"}) {
    CHECK_ERROR(with(text, 0, 1), text, "--rendezvous", "tcp:HOST:PORT");
  }
  CHECK_ERROR(with("tcp:::1:29500", 0, 1), "brackets");
  for (const char* text : {"tcp:host:0", "tcp:host:65536", "tcp:host:port", "tcp:host:", "tcp:host:-1"}) {
    CHECK_ERROR(with(text, 0, 1), text, "from 1 to 65535");
  }
  CHECK_ERROR(with("tcp:host:29500", -1, 2), "--rank R", "--ranks N");
  CHECK_ERROR(with("tcp:host:29500", 0, -1), "--rank R", "--ranks N");
  CHECK_ERROR(with("tcp:host:29500", 2, 2), "--rank is 2", "from 0 to 1");
  CHECK_ERROR(with("tcp:no-such-host.invalid:29500", 1, 2), "no-such-host.invalid", "--rendezvous", "not known");
  CHECK_ERROR(make_world({.rank = 0, .size = 2}), "--rendezvous");
}

TEST_CASE("TCP: nobody comes, nobody listens") {
  const int port = free_port();
  CHECK_ERROR(make_world(at(port, 0, 3, 0.5)), "1 of 3 ranks have come", "missing: 1, 2", std::to_string(port));
  CHECK_ERROR(make_world(at(port, 1, 3, 0.5)), "takes no connection", std::to_string(port));
  const std::vector<Ended> ended = run_forked(2, [&](int r) { make_world(at(port, r, 3, 4)); });
  for (const Ended& e : ended) CHECK_THAT(e.said, contains("missing: 2"));
}

TEST_CASE("TCP: a port in use") {
  const int port = free_port();
  Forked leader(1, [&](int) { make_world(at(port, 0, 2)); });
  await_listener(port);
  CHECK_ERROR(make_world(at(port, 0, 2)), "is in use on this host", std::to_string(port));
  check_all_well(run_forked(1, [&](int) { make_world(at(port, 1, 2)); }));
  check_all_well(leader.wait());
}

/// As ranks send it.
std::string hello(std::string line) {
  line += '\n';
  line.resize(1024);
  return line;
}

TEST_CASE("TCP: ranks that do not fit together are told why") {
  const int port = free_port();
  std::vector<Ended> ended = run_forked(2, [&](int r) { make_world(at(port, r, r == 1 ? 4 : 3)); });
  for (const Ended& e : ended) {
    CHECK(e.code == 3);
    CHECK_THAT(e.said, contains("rank 1 (") && contains("has --ranks 4, and rank 0"));
  }

  const int other = free_port();
  ended = run_forked(3, [&](int r) { make_world(at(other, r == 0 ? 0 : 1, 3)); });
  for (const Ended& e : ended) CHECK_THAT(e.said, contains("two processes have --rank 1"));

  for (const char* line : {"llmz-world 1 2 1 h m", "llmz-world 999 - what is to come"}) {
    const int third = free_port();
    Forked leader(1, [&](int) { make_world(at(third, 0, 2)); });
    CHECK_THAT(answer_to(hello(line), third), contains("another version than rank 0's"));
    CHECK_THAT(leader.wait()[0].said, contains("another version than rank 0's"));
  }
}

TEST_CASE("TCP: ranks without the run's token do not get in, and are counted") {
  const auto with = [](const char* token, int port, int rank, double timeout = 20) {
    if (token != nullptr) setenv("LLMZ_RENDEZVOUS_TOKEN", token, 1);
    make_world(at(port, rank, 2, timeout));
  };
  for (const char* wrong : {"other", "", static_cast<const char*>(nullptr)}) {
    const int port = free_port();
    Forked leader(1, [&](int) { with("secret", port, 0); });
    CHECK(answer_to(hello("llmz-world 999 - what is to come"), port) == "");
    CHECK_THAT(run_forked(1, [&](int) { with(wrong, port, 1); })[0].said, contains("LLMZ_RENDEZVOUS_TOKEN"));
    check_all_well(run_forked(1, [&](int) { with("secret", port, 1); }));
    check_all_well(leader.wait());
  }
  const int port = free_port();
  Forked leader(1, [&](int) { with("", port, 0, 4); });
  CHECK_THAT(run_forked(1, [&](int) { with("secret", port, 1); })[0].said, contains("LLMZ_RENDEZVOUS_TOKEN"));
  CHECK_THAT(leader.wait()[0].said, contains("missing: 1") && contains("1 were refused: LLMZ_RENDEZVOUS_TOKEN"));
  for (const std::string& unfit : {std::string("a b"), std::string("a\n"), std::string(257, 'a')}) {
    const std::vector<Ended> ended = run_forked(1, [&](int) { with(unfit.c_str(), port, 1); });
    CHECK_THAT(ended[0].said, contains("LLMZ_RENDEZVOUS_TOKEN must be"));
  }
}

TEST_CASE("TCP: strangers are shown the door, and do not listen as rank 0") {
  const int port = free_port();
  Forked leader(1, [&](int) { make_world(at(port, 0, 2)); });
  CHECK(answer_to("GET / HTTP/1.1\r\n" + std::string(2000, 'x'), port) == "");
  for (const char* line :
       {"", "other-world 2 - 2 1 h m", "llmz-world", "llmz-world two - 2 1 h m", "llmz-world 2 - 2 1 h",
        "llmz-world 2 - 2 2 h m", "llmz-world 2 - 2 0 h m", "llmz-world 2 - 5 -1 h m"}) {
    INFO(line);
    CHECK(answer_to(hello(line), port) == "");
  }
  check_all_well(run_forked(1, [&](int) { make_world(at(port, 1, 2)); }));
  check_all_well(leader.wait());

  // A server of something else in the place of rank 0.
  const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  socklen_t length = sizeof address;
  REQUIRE(bind(server, reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(listen(server, 4) == 0);
  getsockname(server, reinterpret_cast<sockaddr*>(&address), &length);
  Forked client(1, [&](int) { make_world(at(ntohs(address.sin_port), 1, 2)); });
  const int guest = accept(server, nullptr, nullptr);
  REQUIRE(write(guest, "HTTP/1.1 400 Bad Request\r\n\r\n", 28) == 28);
  CHECK_THAT(client.wait()[0].said, contains("not"));
  close(guest);
  close(server);
}
