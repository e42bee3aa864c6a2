#include <netinet/in.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

#include "catch.h"
#include "errors.h"
#include "forked.h"
#include "llmz/dist/world.h"

using namespace llmz;
using namespace llmz::dist;
using namespace llmz::testing;

namespace {

WorldOptions at(int port, int rank, int size, double timeout = 20) {
  return {.rendezvous = fmt::format("tcp:127.0.0.1:{}", port), .rank = rank, .size = size, .timeout_seconds = timeout};
}

/// Runs `body(world)` on ranks that are together.
std::vector<Ended> in_world(int ranks, const std::function<void(World&)>& body) {
  const int port = free_port();
  return run_forked(ranks, [&](int r) {
    const auto world = make_world(at(port, r, ranks));
    body(*world);
  });
}

void check_all_well(const std::vector<Ended>& ended) {
  for (const Ended& e : ended) {
    CHECK(e.said == "");
    CHECK(e.code == 0);
  }
}

/// Lines that any of them said.
std::vector<std::string> lines(const std::vector<Ended>& ended) {
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

std::string joined(const std::vector<Ended>& ended) {
  std::string text;
  for (const std::string& line : lines(ended)) text += line + "\n";
  return text;
}

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }
void rest(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

}  // namespace

TEST_CASE("TCP: texts, largest numbers and sums of 1, 2, 3 and 7 ranks") {
  for (const int n : {1, 2, 3, 7}) {
    check_all_well(in_world(n, [n](World& world) {
      check(world.size() == n && world.name() == "TCP" && world.local_rank() == world.rank() && world.local_size() == n,
            "who is who");
      for (int round = 0; round < 50; ++round) {
        const auto mine = [&](int r) {
          return std::string(static_cast<size_t>(r * 7 * round), static_cast<char>('a' + r));
        };
        const std::vector<std::string> all = world.all_gather(mine(world.rank()));
        check(static_cast<int>(all.size()) == n, "{} texts", all.size());
        for (int r = 0; r < n; ++r) check(all[static_cast<size_t>(r)] == mine(r), "text of {}", r);
        check(world.max(round % n == world.rank() ? -5 : -6 - world.rank()) == -5, "max");
        check(world.broadcast(std::to_string(world.rank())) == "0", "broadcast");
        world.barrier();
      }
    }));
  }
}

TEST_CASE("TCP: messages larger than any buffer, binary and empty") {
  check_all_well(in_world(3, [](World& world) {
    std::string mine(static_cast<size_t>(world.rank()) * 30'000'001, '\0');
    for (size_t i = 0; i < mine.size(); i += 1000)
      mine[i] = static_cast<char>(i / 1000 + static_cast<size_t>(world.rank()));
    const std::vector<std::string> all = world.all_gather(mine);
    check(all[0].empty() && all[1].size() == 30'000'001 && all[2].size() == 60'000'002, "sizes");
    check(all[static_cast<size_t>(world.rank())] == mine && all[2][59'000'000] == static_cast<char>(59'002), "bytes");
  }));
}

TEST_CASE("TCP: a sum has the same bits on all ranks, in the order of ranks") {
  check_all_well(in_world(3, [](World& world) {
    // (1e16 + 1) + 1 is 1e16 in double; in another order it would be 1e16 + 2.
    const double sum = world.sum(world.rank() == 0 ? 1e16 : 1.0);
    check(sum == 1e16, "{} is not the sum in order", sum);
    check(std::isnan(world.sum(world.rank() == 1 ? std::nan("") : 1.0)), "NaN");
  }));
}

TEST_CASE("TCP: an Error on one rank is an Error on all, and the ranks go on") {
  check_all_well(in_world(3, [](World& world) {
    const std::string one = error_of([&] { world.together([&] { check(world.rank() != 1, "no room"); }); });
    check(one == fmt::format("rank 1 of 3 ({}): no room", world.host()), "{}", one);
    const std::string all = error_of([&] { world.together([] { fail("no data"); }); });
    check(all == "no data", "{}", all);
    world.together([] {});
    world.barrier();
  }));
}

TEST_CASE("TCP: a rank may leave before the others, which are told when they wait for it") {
  const std::vector<Ended> ended = in_world(3, [](World& world) {
    world.barrier();
    if (world.rank() == 2) return;
    rest(1.5);
    const std::string message = error_of([&] { world.barrier(); });
    check(message.find("has ended while rank") != std::string::npos, "{}", message);
  });
  check_all_well(ended);
}

TEST_CASE("TCP: different calls are an Error, not a mixture") {
  const std::vector<Ended> ended = in_world(2, [](World& world) {
    if (world.rank() == 0) world.max(1);
    if (world.rank() == 1) world.sum(1);
  });
  CHECK(ended[0].code == 3);
  CHECK_THAT(ended[0].said, contains("makes another call"));
}

TEST_CASE("TCP: a killed rank ends the others at once, with one line") {
  for (const int victim : {2, 0, 1}) {
    const int port = free_port();
    Forked forked(4, [&](int r) {
      const auto world = make_world(at(port, r, 4));
      world->barrier();
      if (r == victim) {
        rest(0.3);
        raise(SIGKILL);
      }
      if (r == 3) rest(50);  // busy with something else
      world->barrier();
    });
    const auto begin = Clock::now();
    const std::vector<Ended> ended = forked.wait();
    CHECK(seconds_since(begin) < 5);
    INFO(joined(ended));
    CHECK(lines(ended).size() == 1);
    CHECK_THAT(joined(ended), contains(fmt::format("llmz: rank {} of 4 (", victim)));
    CHECK_THAT(joined(ended), contains(") is gone"));
    for (int r = 0; r < 4; ++r) CHECK(ended[static_cast<size_t>(r)].code == (r == victim ? -SIGKILL : 1));
  }
}

TEST_CASE("TCP: abort takes all down at once and says nothing") {
  for (const int who : {0, 2}) {
    const int port = free_port();
    Forked forked(3, [&](int r) {
      const auto world = make_world(at(port, r, 3));
      world->barrier();
      if (r == who) world->abort();
      if (r == 1) rest(50);
      world->barrier();
    });
    const auto begin = Clock::now();
    const std::vector<Ended> ended = forked.wait();
    CHECK(seconds_since(begin) < 3);
    CHECK(joined(ended) == "");
    for (const Ended& e : ended) CHECK(e.code == 1);
  }
}

TEST_CASE("TCP: rank 0 may start last") {
  const int port = free_port();
  check_all_well(run_forked(3, [&](int r) {
    if (r == 0) rest(1);
    make_world(at(port, r, 3))->barrier();
  }));
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
  const std::vector<Ended> ended = run_forked(2, [&](int r) { make_world(at(port, r, 3, 1)); });
  for (const Ended& e : ended) CHECK_THAT(e.said, contains("missing: 2"));
}

TEST_CASE("TCP: a port in use") {
  const int port = free_port();
  const std::vector<Ended> ended = run_forked(2, [&](int r) {
    rest(0.3 * r);
    make_world(at(port, 0, 2, 1));
  });
  CHECK_THAT(ended[0].said, contains("missing: 1"));
  CHECK_THAT(ended[1].said, contains("is in use on this host"));
}

TEST_CASE("TCP: ranks that do not fit together are told why") {
  const int port = free_port();
  std::vector<Ended> ended = run_forked(3, [&](int r) { make_world(at(port, r, r == 2 ? 4 : 3, 5)); });
  for (const Ended& e : ended) CHECK(e.code == 3);
  CHECK_THAT(ended[0].said, contains("has --ranks 4, and rank 0"));
  CHECK_THAT(ended[2].said, contains("has --ranks 4, and rank 0"));

  const int other = free_port();
  ended = run_forked(3, [&](int r) { make_world(at(other, r == 0 ? 0 : 1, 3, 5)); });
  for (const Ended& e : ended) CHECK_THAT(e.said, contains("two processes have --rank 1"));
}

TEST_CASE("TCP: strangers are shown the door, and do not listen as rank 0") {
  const int port = free_port();
  const std::vector<Ended> ended = run_forked(3, [&](int r) {
    if (r < 2) {
      if (r == 1) rest(1);
      make_world(at(port, r, 2))->barrier();
      return;
    }
    rest(0.3);
    const int s = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET, address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check(connect(s, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "no connection");
    const std::string request = "GET / HTTP/1.1\r\n" + std::string(2000, 'x');
    check(write(s, request.data(), request.size()) > 0, "nothing sent");
    char answer = 0;
    check(read(s, &answer, 1) <= 0, "a stranger was answered");
  });
  check_all_well(ended);

  // A server of something else in the place of rank 0.
  const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  socklen_t length = sizeof address;
  REQUIRE(bind(server, reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(listen(server, 4) == 0);
  getsockname(server, reinterpret_cast<sockaddr*>(&address), &length);
  Forked client(1, [&](int) { make_world(at(ntohs(address.sin_port), 1, 2, 5)); });
  const int guest = accept(server, nullptr, nullptr);
  REQUIRE(write(guest, "HTTP/1.1 400 Bad Request\r\n\r\n", 28) == 28);
  CHECK_THAT(client.wait()[0].said, contains("not"));
  close(guest);
  close(server);
}

TEST_CASE("TCP: several ranks compute on GPUs alone") {
  check_all_well(in_world(2, [](World& world) {
    Memory memory;
    const std::string message = error_of([&] { world.make_communicator(memory); });
    check(message.find("several ranks need MPI") != std::string::npos, "{}", message);
  }));
}
