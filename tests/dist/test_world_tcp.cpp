#include <signal.h>

#include <cmath>
#include <cstring>

#include "errors.h"
#include "tcp_ranks.h"

using namespace llmz;
using namespace llmz::dist;
using namespace llmz::testing;

namespace {

/// Runs `body(world)` on ranks that are together.
std::vector<Ended> in_world(int ranks, const std::function<void(World&)>& body) {
  const int port = free_port();
  return run_forked(ranks, [&](int r) {
    const auto world = make_world(at(port, r, ranks));
    body(*world);
  });
}

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
    CHECK(seconds_since(begin) < 10);
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
    CHECK(seconds_since(begin) < 10);
    CHECK(joined(ended) == "");
    for (const Ended& e : ended) CHECK(e.code == 1);
  }
}

TEST_CASE("TCP: several ranks compute on GPUs alone") {
  check_all_well(in_world(2, [](World& world) {
    Memory memory;
    const std::string message = error_of([&] { world.make_communicator(memory); });
    check(message.find("several ranks need MPI") != std::string::npos, "{}", message);
  }));
}
