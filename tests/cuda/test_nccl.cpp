// Collectives between processes, each with a GPU of its own: with real GPUs as many ranks as there are, emulated up to
// three. A process that has started CUDA cannot be forked, so this program runs itself again for each rank.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "catch.h"
#include "dist/forked.h"
#include "dist/rank_values.h"
#include "llmz/core/system.h"
#include "llmz/core/version.h"
#include "llmz/dist/world.h"

using namespace llmz;
using namespace llmz::dist;
using namespace llmz::testing;

namespace {

int number(const char* variable) {
  const char* text = std::getenv(variable);
  REQUIRE(text != nullptr);
  return std::atoi(text);
}

/// Runs the hidden test case `name` in `ranks` processes; their exit codes.
std::vector<int> run_ranks(int ranks, const char* name) {
  if (cuda_info().emulated) setenv("LLMZ_EMULATED_GPUS", "3", 1);
  setenv("LLMZ_TEST_RANKS", std::to_string(ranks).c_str(), 1);
  setenv("LLMZ_TEST_PORT", std::to_string(llmz::testing::free_port()).c_str(), 1);
  std::vector<pid_t> ids;
  for (int r = 0; r < ranks; ++r) {
    setenv("LLMZ_TEST_RANK", std::to_string(r).c_str(), 1);
    std::string program = "test_cuda_nccl", test = name;
    std::string option = "--reporter=compact";
    char* const arguments[] = {program.data(), test.data(), option.data(), nullptr};
    pid_t id = 0;
    REQUIRE(posix_spawn(&id, "/proc/self/exe", nullptr, nullptr, arguments, environ) == 0);
    ids.push_back(id);
  }
  std::vector<int> codes;
  for (const pid_t id : ids) {
    int status = 0;
    waitpid(id, &status, 0);
    codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
  }
  return codes;
}

/// Whether there is an NCCL to test; says so where there is none.
bool nccl_is_here() {
  for (const BuildComponent& c : build_info().components) {
    if (c.name == "NCCL" && c.on) return true;
  }
  WARN("not run: this build has no NCCL");
  return false;
}
bool emulated_nccl_is_here() { return cuda_info().emulated && nccl_is_here(); }

int most_ranks() { return cuda_info().emulated ? 3 : static_cast<int>(cuda_info().devices.size()); }

std::unique_ptr<World> world_of_test() {
  alarm(120);  // nothing that hangs outlives the test
  return make_world({.rendezvous = fmt::format("tcp:127.0.0.1:{}", number("LLMZ_TEST_PORT")),
                     .rank = number("LLMZ_TEST_RANK"),
                     .size = number("LLMZ_TEST_RANKS"),
                     .timeout_seconds = 60});
}

/// Tensors on the GPU of this rank, and values that tell rank, tensor and element apart.
struct Fixture {
  std::unique_ptr<World> world = world_of_test();
  std::unique_ptr<Memory> memory;
  std::vector<Tensor> tensors;

  Fixture(const std::vector<std::pair<Shape, DType>>& wanted) {
    Memory recorder(DeviceType::cuda);
    const auto build = [&](Memory& m) {
      std::vector<Tensor> made;
      for (const auto& [shape, type] : wanted) made.push_back(m.persistent("t", Category::gradients, shape, type));
      return made;
    };
    build(recorder);
    memory = std::make_unique<Memory>(recorder.finish(), assign_device(*world, "cuda"));
    tensors = build(*memory);
    for (size_t i = 0; i < tensors.size(); ++i) put(i);
  }

  double sum(size_t tensor, int64_t e) const { return sum_of_rank_values(world->size(), tensor, e); }
  void put(size_t i) {
    const Tensor& t = tensors[i];
    std::vector<std::byte> bytes(t.bytes());
    for (int64_t e = 0; e < t.numel(); ++e) set_element(bytes.data(), t.dtype, e, rank_value(world->rank(), i, e));
    memory->gpu()->copy_to_device(t.data, bytes.data(), bytes.size());
  }
  /// All elements as numbers.
  std::vector<double> get(size_t i) const {
    const Tensor& t = tensors[i];
    std::vector<std::byte> bytes(t.bytes());
    memory->gpu()->copy_to_host(bytes.data(), t.data, bytes.size());
    std::vector<double> values(static_cast<size_t>(t.numel()));
    for (int64_t e = 0; e < t.numel(); ++e) values[static_cast<size_t>(e)] = element(bytes.data(), t.dtype, e);
    return values;
  }
  /// The elements that belong to `rank` of a tensor that is spread by rows.
  std::pair<int64_t, int64_t> part(size_t i, int rank) const {
    const int64_t n = tensors[i].numel() / world->size();
    return {rank * n, (rank + 1) * n};
  }
};

constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f64, DType::i32, DType::u8};

/// Every type at odd sizes; the first dimension is a multiple of 1, 2 and 3 ranks and of what real machines have.
std::vector<std::pair<Shape, DType>> odd_tensors() {
  const auto rows = static_cast<int64_t>(number("LLMZ_TEST_RANKS"));
  std::vector<std::pair<Shape, DType>> all;
  for (const DType t : kTypes) {
    for (const int64_t columns : {1, 7, 333, 100'003}) all.push_back({{rows, columns}, t});
    all.push_back({{rows * 5, 3}, t});
  }
  return all;
}

/// Mismatches in [begin, end) between what there is and `wanted(element)`.
template <class Wanted>
int64_t wrong(const std::vector<double>& values, int64_t begin, int64_t end, Wanted&& wanted) {
  int64_t count = 0;
  for (int64_t e = begin; e < end; ++e) count += values[static_cast<size_t>(e)] != wanted(e);
  return count;
}

}  // namespace

TEST_CASE("NCCL: every collective, at every type and odd sizes, in as many processes as there are GPUs") {
  if (!nccl_is_here()) return;
  for (int n = 1; n <= most_ranks(); ++n) {
    for (const char* name : {"rank: all_reduce", "rank: mixed bucket", "rank: all_gather_rows", "rank: broadcast",
                             "rank: beside the GPU's stream", "rank: captured"}) {
      INFO(name << ", " << n << " ranks");
      CHECK(run_ranks(n, name) == std::vector<int>(static_cast<size_t>(n), 0));
    }
  }
}

TEST_CASE("rank: all_reduce", "[.]") {
  Fixture f(odd_tensors());
  const auto comm = f.world->make_communicator(*f.memory);
  REQUIRE(comm->name() == "NCCL");
  REQUIRE(comm->size() == f.world->size());
  comm->all_reduce(f.tensors);
  for (size_t i = 0; i < f.tensors.size(); ++i) {
    CHECK(wrong(f.get(i), 0, f.tensors[i].numel(), [&](int64_t e) { return f.sum(i, e); }) == 0);
  }
}

TEST_CASE("rank: mixed bucket", "[.]") {
  Fixture f(odd_tensors());
  const auto comm = f.world->make_communicator(*f.memory);
  // Two buckets on their way at once, in each of them both kinds.
  std::vector<Reduction> buckets[2];
  for (size_t i = 0; i < f.tensors.size(); ++i) buckets[i % 4 / 2].push_back({f.tensors[i], i % 2 == 1});
  comm->start(buckets[0]);
  comm->start(buckets[1]);
  comm->finish();
  for (size_t i = 0; i < f.tensors.size(); ++i) {
    const auto [begin, end] =
        i % 2 == 1 ? f.part(i, comm->rank()) : std::pair<int64_t, int64_t>(0, f.tensors[i].numel());
    INFO("tensor " << i);
    CHECK(wrong(f.get(i), begin, end, [&](int64_t e) { return f.sum(i, e); }) == 0);
  }
}

TEST_CASE("rank: all_gather_rows", "[.]") {
  Fixture f(odd_tensors());
  const auto comm = f.world->make_communicator(*f.memory);
  comm->all_gather_rows(f.tensors);
  for (size_t i = 0; i < f.tensors.size(); ++i) {
    for (int r = 0; r < comm->size(); ++r) {
      const auto [begin, end] = f.part(i, r);
      CHECK(wrong(f.get(i), begin, end, [&](int64_t e) { return rank_value(r, i, e); }) == 0);
    }
  }
}

TEST_CASE("rank: broadcast", "[.]") {
  Fixture f(odd_tensors());
  const auto comm = f.world->make_communicator(*f.memory);
  const int root = comm->size() - 1;
  comm->broadcast(f.tensors, root);
  for (size_t i = 0; i < f.tensors.size(); ++i) {
    CHECK(wrong(f.get(i), 0, f.tensors[i].numel(), [&](int64_t e) { return rank_value(root, i, e); }) == 0);
  }
}

// What stands before a collective on the GPU's stream comes before it, and what follows `finish` after it.
TEST_CASE("rank: beside the GPU's stream", "[.]") {
  const int64_t n = 4'000'000;
  Fixture f({{{n}, DType::u8}, {{n}, DType::u8}});
  const auto comm = f.world->make_communicator(*f.memory);
  for (int round = 1; round <= 5; ++round) {
    for (int value = 9; value >= round; --value)
      f.memory->gpu()->fill(f.tensors[0].data, value, static_cast<size_t>(n));
    const Reduction reduction{f.tensors[0]};
    comm->start({&reduction, 1});
    f.memory->gpu()->fill(f.tensors[1].data, 77, static_cast<size_t>(n));
    comm->finish();
    CHECK(wrong(f.get(0), 0, n, [&](int64_t) { return round * comm->size(); }) == 0);
    comm->all_reduce(f.tensors[0]);
    f.memory->gpu()->fill(f.tensors[0].data, round, static_cast<size_t>(n));
    CHECK(wrong(f.get(0), 0, n, [&](int64_t) { return round; }) == 0);
  }
}

// A graph takes the collectives along with what is before and after them.
TEST_CASE("rank: captured", "[.]") {
  const int64_t n = 1003;
  Fixture f({{{n}, DType::u8}, {{n}, DType::f32}});
  const auto comm = f.world->make_communicator(*f.memory);
  comm->all_reduce(f.tensors[1]);  // NCCL connects at the first call
  Gpu& gpu = *f.memory->gpu();
  gpu.synchronize();
  gpu.begin_capture();
  gpu.fill(f.tensors[0].data, 3, static_cast<size_t>(n));
  comm->all_reduce(f.tensors[0]);
  comm->finish();  // nothing was started: nothing to wait for
  const auto graph = gpu.end_capture();
  for (int round = 0; round < 3; ++round) {
    gpu.launch(*graph);
    CHECK(wrong(f.get(0), 0, n, [&](int64_t) { return 3 * comm->size(); }) == 0);
  }
}

// --- what only the emulation finds out ----------------------------------------------------------------------------

TEST_CASE("NCCL, emulated: different calls are an Error on every rank") {
  if (!emulated_nccl_is_here()) return;
  CHECK(run_ranks(2, "rank: different calls") == std::vector<int>{0, 0});
}

TEST_CASE("rank: different calls", "[.]") {
  Fixture f({{{6, 5}, DType::f32}, {{6, 5}, DType::i32}, {{6, 4}, DType::f32}});
  const auto comm = f.world->make_communicator(*f.memory);
  CHECK_THROWS_WITH(comm->all_reduce(f.tensors[f.world->leads() ? 0 : 1]), contains("NCCL: ncclGroupEnd failed"));
  // The communicator is of no use any more, on no rank.
  CHECK_THROWS_WITH(comm->all_reduce(f.tensors[0]), contains("failed"));
}

TEST_CASE("NCCL, emulated: a rank that dies ends the others") {
  if (!emulated_nccl_is_here()) return;
  CHECK(run_ranks(3, "rank: dies") == std::vector<int>{1, -SIGKILL, 1});
}

TEST_CASE("rank: dies", "[.]") {
  Fixture f({{{6, 5}, DType::f32}});
  const auto comm = f.world->make_communicator(*f.memory);
  if (comm->rank() == 1) raise(SIGKILL);
  comm->all_reduce(f.tensors[0]);  // for 60 s, if nobody ended this process
}

TEST_CASE("NCCL, emulated: what goes wrong beside the ranks' own calls is noticed") {
  if (!emulated_nccl_is_here()) return;
  CHECK(run_ranks(2, "rank: gives up") == std::vector<int>{1, 1});
}

TEST_CASE("rank: gives up", "[.]") {
  Fixture f({{{6, 5}, DType::f32}});
  try {
    const auto comm = f.world->make_communicator(*f.memory);
    f.world->barrier();
    if (comm->rank() == 1) fail("no more");  // the communicator is left by an Error, and tells NCCL's others
    sleep(60);
  } catch (const Error&) {
    sleep(60);
  }
}

TEST_CASE("NCCL, emulated: two ranks on one GPU are refused before anything is allocated") {
  if (!emulated_nccl_is_here()) return;
  CHECK(run_ranks(2, "rank: one GPU for two") == std::vector<int>{0, 0});
  CHECK(run_ranks(3, "rank: too few GPUs") == std::vector<int>{0, 0, 0});
}

TEST_CASE("rank: one GPU for two", "[.]") {
  const auto world = world_of_test();
  CHECK_THROWS_WITH(assign_device(*world, "cuda:1"), contains("rank 0 and rank 1 would both take cuda:1"));
  CHECK(assign_device(*world, world->leads() ? "cuda:2" : "cuda:0").index == (world->leads() ? 2 : 0));
}

TEST_CASE("rank: too few GPUs", "[.]") {
  const auto world = world_of_test();
  setenv("LLMZ_EMULATED_GPUS", "2", 1);
  CHECK_THROWS_WITH(assign_device(*world, "cuda"), contains("runs 3 ranks and has 2 GPUs: start at most 2"));
}
