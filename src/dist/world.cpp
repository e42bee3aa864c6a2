#include "llmz/dist/world.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "src/dist/implementations.h"

namespace llmz::dist {
namespace {

std::string this_host() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 && name[0] != 0 ? name : "this host";
}

class SingleWorld final : public World {
 public:
  SingleWorld() : World(0, 1) { set_hosts({this_host()}, {0}); }
  std::string_view name() const override { return "single"; }
  std::vector<std::string> all_gather(const std::string& mine) override { return {mine}; }
  int64_t max(int64_t mine) override { return mine; }
  double sum(double mine) override { return mine; }
  [[noreturn]] void abort() override { std::_Exit(1); }

 private:
  std::unique_ptr<Communicator> make_cpu_communicator() override { return std::make_unique<DryCommunicator>(); }
};

}  // namespace

void World::set_hosts(std::vector<std::string> hosts, std::vector<int> machines) {
  hosts_ = std::move(hosts);
  machines_ = std::move(machines);
  const auto begin = machines_.begin();
  const int here = machine(rank_);
  local_rank_ = static_cast<int>(std::count(begin, begin + rank_, here));
  local_size_ = static_cast<int>(std::count(begin, machines_.end(), here));
}

std::string World::who() const { return fmt::format("rank {} of {} ({})", rank_, size_, host()); }

std::string World::broadcast(const std::string& mine) { return all_gather(rank_ == 0 ? mine : "").front(); }

void World::together(const std::function<void()>& part) {
  if (size_ == 1) return part();
  std::string message;  // empty: it went well
  try {
    part();
  } catch (const Error& e) {
    message = e.what();
    if (message.empty()) message = "an error without a message";
  }
  if (max(message.empty() ? 0 : 1) == 0) return;
  const std::vector<std::string> all = all_gather(message);
  const auto first = std::find_if(all.begin(), all.end(), [](const std::string& m) { return !m.empty(); });
  const bool same = std::all_of(all.begin(), all.end(), [&](const std::string& m) { return m == *first; });
  const auto rank = static_cast<size_t>(first - all.begin());
  throw SharedError(same ? *first : fmt::format("rank {} of {} ({}): {}", rank, size_, hosts_[rank], *first));
}

void World::check_same(const std::string& what, const std::string& mine) {
  const std::vector<std::string> all = all_gather(mine);
  for (size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    throw SharedError(
        fmt::format("{} of rank {} ({}) is not that of rank 0 ({}): copy it there, or name one that all hosts see",
                    what, rank, hosts_[rank], hosts_[0]));
  }
}

void World::give_up(const std::string& message) {
  // Ranks mostly fail together and of the same cause: the first to speak ends the others before they do.
  // A busy machine takes its time over that.
  if (rank_ > 0) std::this_thread::sleep_for(std::chrono::milliseconds(2500 + 20 * std::min(rank_, 50)));
  fmt::print(stderr, "llmz: {}: {}\n", who(), message);
  std::fflush(stderr);
  abort();
  std::_Exit(1);  // the compiler does not believe a virtual function
}

std::unique_ptr<Communicator> World::make_communicator(Memory& memory) {
  if (memory.target() != DeviceType::cuda) return make_cpu_communicator();
  if (size_ == 1 && (name() == "single" || !nccl_is_built())) return std::make_unique<DryCommunicator>();
  return make_nccl_communicator(*this, memory);
}

namespace {

/// The variables that a launcher sets for each process of a job.
struct Launcher {
  const char *rank, *size;
};
constexpr Launcher kLaunchers[] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},  // Open MPI
                                   {"PMI_RANK", "PMI_SIZE"},                          // MPICH and its descendants
                                   {"PMIX_RANK", "SLURM_STEP_NUM_TASKS"}};            // Slurm's PMIx

const Launcher* launcher() {
  const auto* found = std::find_if(std::begin(kLaunchers), std::end(kLaunchers),
                                   [](auto& l) { return std::getenv(l.rank) != nullptr; });
  return found == std::end(kLaunchers) ? nullptr : found;
}

}  // namespace

bool started_by_mpi() { return launcher() != nullptr; }

Launch launch_of_this_process() {
  const Launcher* l = launcher();
  const char* size = l == nullptr ? nullptr : std::getenv(l->size);
  if (size == nullptr) return {};
  return {.rank = std::atoi(std::getenv(l->rank)), .size = std::atoi(size)};
}

std::unique_ptr<World> make_single_world() { return std::make_unique<SingleWorld>(); }

std::unique_ptr<World> make_world(const WorldOptions& options) {
  if (!options.rendezvous.empty()) return make_tcp_world(options);
  check(options.rank < 0 && options.size < 0,
        "--rank and --ranks go with --rendezvous tcp:HOST:PORT; under mpirun each process knows its rank");
  if (started_by_mpi()) return make_mpi_world();
  return make_single_world();
}

}  // namespace llmz::dist
