// The collectives and messages of MPI, in a program that mpirun starts: every rank checks what it got.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <thread>

#include "dist/rank_values.h"
#include "errors.h"
#include "llmz/core/system.h"
#include "llmz/dist/world.h"

using namespace llmz;
using namespace llmz::dist;
using namespace llmz::testing;

namespace {

constexpr DType kTypes[] = {DType::f32, DType::f64, DType::bf16, DType::i32, DType::u8};
constexpr DType kFloats[] = {DType::f32, DType::f64, DType::bf16};

bool is_float(DType t) { return t != DType::i32 && t != DType::u8; }

/// Tensors of one rank, each with a guard behind it that no collective may touch.
class Tensors {
 public:
  static constexpr size_t kGuard = 64;

  explicit Tensors(int rank) : rank_(rank) {}

  void add(Shape shape, DType type) {
    Tensor t(nullptr, type, shape, {DeviceType::cpu, 0});
    bytes_.emplace_back(t.bytes() + kGuard, std::byte{0x5a});
    t.data = bytes_.back().data();
    for (int64_t e = 0; e < t.numel(); ++e) set_element(t.data, type, e, rank_value(rank_, all.size(), e));
    all.push_back(t);
  }
  /// That elements [first, last) of tensor i are `wanted(element)`.
  template <class Wanted>
  void expect(size_t i, int64_t first, int64_t last, const Wanted& wanted) const {
    const Tensor& t = all[i];
    for (int64_t e = first; e < last; ++e) {
      const double found = element(t.data, t.dtype, e);
      check(found == wanted(e), "tensor {} {} {}: element {} is {} and should be {}", i, dtype_name(t.dtype),
            t.shape.str(), e, found, wanted(e));
    }
    for (size_t g = 0; g < kGuard; ++g) check(bytes_[i][t.bytes() + g] == std::byte{0x5a}, "written past tensor {}", i);
  }

  std::vector<Tensor> all;

 private:
  int rank_;
  std::vector<std::vector<std::byte>> bytes_;
};

/// Small, odd and large (beyond what travels together) ones mixed; rows divide by the number of ranks.
Tensors tensors_of(const World& world, bool floats_only) {
  Tensors tensors(world.rank());
  for (const int64_t columns : {1, 7, 333, 30'011}) {
    for (const DType t : kTypes) {
      if (floats_only && !is_float(t)) continue;
      tensors.add({world.size(), columns}, t);
      tensors.add({world.size() * 5, 3}, t);
    }
  }
  return tensors;
}

struct Rig {
  World& world;
  Memory memory{DeviceType::cpu};
  std::unique_ptr<Communicator> ranks = world.make_communicator(memory);

  double sum(size_t tensor, int64_t e) const { return sum_of_rank_values(world.size(), tensor, e); }
};

double bytes_of(const std::vector<Tensor>& tensors) {
  double bytes = 0;
  for (const Tensor& t : tensors) bytes += static_cast<double>(t.bytes());
  return bytes;
}

void all_reduce(World& world) {
  Rig rig{world};
  check(rig.ranks->name() == "MPI" && rig.ranks->size() == world.size() && rig.ranks->rank() == world.rank(), "who");
  Tensors t = tensors_of(world, /*floats_only=*/true);
  rig.ranks->all_reduce(t.all);
  for (size_t i = 0; i < t.all.size(); ++i) {
    t.expect(i, 0, t.all[i].numel(), [&](int64_t e) { return rig.sum(i, e); });
  }
  check(rig.ranks->traffic()[Traffic::all_reduce] == bytes_of(t.all), "bytes counted");
  const double sent = 2 * bytes_of(t.all) * (world.size() - 1) / world.size();
  check(std::abs(rig.ranks->traffic().sent(world.size()) - sent) <= 1e-9 * sent, "bytes sent");
}

/// Two buckets on their way at once, whole tensors and rows in both.
void mixed_buckets(World& world) {
  Rig rig{world};
  Tensors t = tensors_of(world, /*floats_only=*/true);
  std::vector<Reduction> buckets[2];
  double scattered = 0;
  for (size_t i = 0; i < t.all.size(); ++i) {
    const bool by_rows = i % 3 == 1;
    buckets[i % 4 / 2].push_back({t.all[i], by_rows});
    if (by_rows) scattered += static_cast<double>(t.all[i].bytes());
  }
  for (const auto& bucket : buckets) rig.ranks->start(bucket);
  rig.ranks->finish();
  for (size_t i = 0; i < t.all.size(); ++i) {
    const int64_t part = t.all[i].numel() / world.size();
    const bool by_rows = i % 3 == 1;
    const int64_t first = by_rows ? part * world.rank() : 0;
    t.expect(i, first, by_rows ? first + part : t.all[i].numel(), [&](int64_t e) { return rig.sum(i, e); });
  }
  check(rig.ranks->traffic()[Traffic::reduce_scatter] == scattered, "bytes scattered");
  check(rig.ranks->traffic()[Traffic::all_reduce] == bytes_of(t.all) - scattered, "bytes reduced");
  rig.ranks->finish();  // nothing was started: nothing to wait for
}

void all_gather(World& world) {
  Rig rig{world};
  Tensors t = tensors_of(world, /*floats_only=*/false);
  rig.ranks->all_gather_rows(t.all);
  for (size_t i = 0; i < t.all.size(); ++i) {
    const int64_t part = t.all[i].numel() / world.size();
    t.expect(i, 0, t.all[i].numel(), [&](int64_t e) { return rank_value(static_cast<int>(e / part), i, e); });
  }
  check(rig.ranks->traffic()[Traffic::all_gather] == bytes_of(t.all), "bytes counted");
}

void broadcast(World& world) {
  for (int root = 0; root < world.size(); ++root) {
    Rig rig{world};
    Tensors t = tensors_of(world, /*floats_only=*/false);
    rig.ranks->broadcast(t.all, root);
    for (size_t i = 0; i < t.all.size(); ++i) {
      t.expect(i, 0, t.all[i].numel(), [&](int64_t e) { return rank_value(root, i, e); });
    }
    check(rig.ranks->traffic()[Traffic::broadcast] == bytes_of(t.all), "bytes counted");
  }
}

/// Numbers whose sum depends on the order in which they are added: all ranks must have added in the same.
void same_bits(World& world) {
  Rig rig{world};
  for (const DType type : kFloats) {
    for (const int64_t count : {5, 1000, 200'003}) {
      Tensors t(world.rank());
      t.add({count}, type);
      for (int64_t e = 0; e < count; ++e) {
        set_element(t.all[0].data, type, e,
                    std::sin(static_cast<double>(e * 3 + world.rank() * 17 + 1)) * (e % 5 == 0 ? 1e4 : 1));
      }
      rig.ranks->all_reduce(t.all);
      const std::string mine(static_cast<const char*>(t.all[0].data), t.all[0].bytes());
      for (const std::string& other : world.all_gather(mine)) {
        check(other == mine, "the sum of {} {} is not the same on all ranks", count, dtype_name(type));
      }
    }
  }
}

/// What cannot be is refused on every rank before anything is sent.
void refusals(World& world) {
  Rig rig{world};
  Tensors t(world.rank());
  t.add({world.size() + 1, 3}, DType::f32);
  const std::string uneven = error_of([&] { rig.ranks->all_gather_rows(t.all); });
  check(uneven == fmt::format("{} rows are not {} equal parts", world.size() + 1, world.size()), "{}", uneven);
  const Reduction rows{t.all[0], true};
  check(error_of([&] { rig.ranks->start({&rows, 1}); }) == uneven, "reduce-scatter");
  const std::string nobody = error_of([&] { rig.ranks->broadcast(t.all, world.size()); });
  check(nobody.starts_with("there is no rank"), "{}", nobody);
  world.barrier();
}

void messages(World& world) {
  const int n = world.size();
  for (int round = 0; round < 20; ++round) {
    // Empty ones, and of several megabytes in the last rounds.
    const auto text = [&](int r) {
      const size_t length = static_cast<size_t>(r * round) * (round >= 18 ? 50'001 : 7);
      return std::string(length, static_cast<char>('a' + r + round));
    };
    const std::vector<std::string> all = world.all_gather(text(world.rank()));
    check(static_cast<int>(all.size()) == n, "{} texts", all.size());
    for (int r = 0; r < n; ++r) check(all[static_cast<size_t>(r)] == text(r), "the text of rank {}", r);
    check(world.max(round % n == world.rank() ? -5 : -6 - world.rank()) == -5, "the largest number");
    check(world.broadcast(std::to_string(world.rank())) == "0", "broadcast");
  }
  check(world.sum(world.rank() + 0.5) == n * (n - 1) / 2 + 0.5 * n, "sum");
  check(std::isnan(world.sum(world.rank() == 1 ? std::nan("") : 1.0)), "NaN");
  check(world.max(INT64_MIN + world.rank()) == INT64_MIN + n - 1, "smallest numbers");
}

void together(World& world) {
  const std::string one = error_of([&] { world.together([&] { check(world.rank() != 1, "no room"); }); });
  check(one == fmt::format("rank 1 of {} ({}): no room", world.size(), world.hosts()[1]), "{}", one);
  const std::string same = error_of([&] { world.together([] { fail("no data"); }); });
  check(same == "no data", "{}", same);
  world.together([] {});
}

void places(World& world) {
  check(world.name() == "MPI" && world.local_rank() == world.rank() && world.local_size() == world.size(),
        "all ranks of this test are on one host: {} of {}", world.local_rank(), world.local_size());
  for (const std::string& host : world.hosts()) check(host == world.host() && !host.empty(), "hosts");
  check(world.leads() == (world.rank() == 0), "rank 0 leads");
  // Ranks that nobody has bound share the processors.
  const int wanted = std::max(1, cpu_info().threads() / world.size());
  const int threads = fair_threads(world);
  check(threads == wanted, "{} threads instead of {}", threads, wanted);
}

struct Test {
  const char* name;
  void (*body)(World&);
};

constexpr Test kTests[] = {{"places", places},         {"messages", messages},           {"together", together},
                           {"all_reduce", all_reduce}, {"mixed buckets", mixed_buckets}, {"all_gather", all_gather},
                           {"broadcast", broadcast},   {"same bits", same_bits},         {"refusals", refusals}};

}  // namespace

int main(int, char** argv) {
  const auto world = make_world();
  try {
    // A program that MPI does not recognise as one of several would pass as many times as it was started.
    check(world->size() == std::atoi(argv[1]), "{} ranks instead of {}", world->size(), argv[1]);
    for (const Test& test : kTests) {
      try {
        test.body(*world);
      } catch (const Error& e) {
        fail("{}: {}", test.name, e.what());
      }
    }
  } catch (const std::exception& e) {
    world->give_up(e.what());
  }
  if (world->leads()) std::printf("%d ranks: all well\n", world->size());
  return 0;
}
