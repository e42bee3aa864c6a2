#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "llmz/core/communicator.h"
#include "llmz/core/error.h"
#include "llmz/core/memory.h"

namespace llmz::dist {

/// An Error that every rank knows of: one of them speaks, and all end by themselves.
class SharedError : public Error {
 public:
  using Error::Error;
};

/// The processes of a run, and small messages between them that do not go through a device: who there is, whether all
/// agree, that one gives up. What trains calls it before and between steps; tensors go through a Communicator. All
/// ranks make the same calls in the same order. Implementations: one process alone, MPI, TCP.
class World {
 public:
  virtual ~World() = default;
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool leads() const { return rank_ == 0; }   ///< whether this rank writes files and speaks to people
  virtual std::string_view name() const = 0;  ///< "single", "MPI", "TCP"

  /// Every rank's text, by rank.
  virtual std::vector<std::string> all_gather(const std::string& mine) = 0;
  /// The largest of all ranks' numbers. Cheap: once a step does not matter.
  virtual int64_t max(int64_t mine) = 0;
  virtual double sum(double mine) = 0;
  void barrier() { max(0); }
  /// The text of rank 0.
  std::string broadcast(const std::string& mine);

  /// Ends all ranks within seconds, this one at once, with exit code 1. Says nothing.
  [[noreturn]] virtual void abort() = 0;

  /// What a rank does that cannot go on while others may be waiting for it: says why, in one line with its name, and
  /// ends all ranks. Of ranks that fail at once the first speaks for all.
  [[noreturn]] void give_up(const std::string& message);

  /// Runs `part`, in which this rank may fail alone: it then gives up, the one place where ranks do. An error that all
  /// ranks know of (SharedError), and any of one process alone, goes on. What others may be writing to while this rank
  /// gives up must outlive the call.
  template <class Part>
  auto guard(const Part& part) {
    try {
      return part();
    } catch (const SharedError&) {
      throw;
    } catch (const std::exception& e) {
      if (size_ == 1) throw;
      give_up(e.what());
    }
  }

  /// Runs `part` on every rank. Where it throws Error on one or more of them, all throw a SharedError with the message
  /// of the first, which names the rank and its host unless all ranks say the same.
  void together(const std::function<void()>& part);

  /// That all ranks have the same text of `what` ("the configuration"), read from files that may be others on another
  /// host. Throws SharedError on all ranks where one has not.
  void check_same(const std::string& what, const std::string& mine);

  /// One host as the ranks on it see it.
  const std::string& host() const { return hosts_[static_cast<size_t>(rank_)]; }
  const std::vector<std::string>& hosts() const { return hosts_; }  ///< by rank
  /// This rank's place among those that share its host's memory, and their number. From MPI's shared-memory split, or
  /// from what each rank tells of its host; never from the environment.
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }

  /// The lowest rank of those that share memory with `rank`, which so names its machine: host names may be given twice.
  int machine(int rank) const { return machines_[static_cast<size_t>(rank)]; }

  /// "rank 2 of 4 (host)", to begin a message with.
  std::string who() const;

  /// Tensors of `memory` on the CPU, on a GPU without NCCL (an Error), or through NCCL. With one rank a
  /// DryCommunicator, unless it stands on a GPU and was started as one of many might be (mpirun -np 1): then through
  /// NCCL too.
  std::unique_ptr<Communicator> make_communicator(Memory& memory);

 protected:
  World(int rank, int size) : rank_(rank), size_(size) {}
  /// By rank: the host's name, and the machine as `machine` has it.
  void set_hosts(std::vector<std::string> hosts, std::vector<int> machines);
  virtual std::unique_ptr<Communicator> make_cpu_communicator() = 0;

 private:
  int rank_, size_;
  std::vector<std::string> hosts_;
  std::vector<int> machines_;
  int local_rank_ = 0, local_size_ = 1;
};

/// How processes find each other.
struct WorldOptions {
  /// Empty: MPI where mpirun or srun started this process as one of several, else one process alone. "tcp:host:port":
  /// rank 0 listens there, for launchers without MPI; then rank and size have to be given, and all ranks need the same
  /// LLMZ_RENDEZVOUS_TOKEN in their environment, or none.
  std::string rendezvous = {};
  int rank = -1, size = -1;
  double timeout_seconds = 120;  ///< TCP: until all ranks must have come
};

/// Throws Error: a launcher is there and the build has no MPI, nobody came, rank and size make no sense.
std::unique_ptr<World> make_world(const WorldOptions& options = {});
/// What an MPI launcher says of this process in the environment; one of one where there is none, or it does not say.
/// For commands that are to run once and have no use for MPI: a World asks MPI itself.
struct Launch {
  int rank = 0, size = 1;
};
Launch launch_of_this_process();

/// One process alone.
std::unique_ptr<World> make_single_world();

/// The libraries that connect ranks, as they name themselves, in one line: "Open MPI v4.1.4, ...", "2.28.9". Empty
/// where this build has none. MPI need not run.
std::string mpi_library();
std::string nccl_library();

/// The device of this rank as train.device asks (auto | cpu | cuda | cuda:k), for all ranks of a host different ones:
/// the GPU whose number is the rank's place on its host, or the only one it sees where each sees another. Throws
/// SharedError on all ranks, before anything is allocated: a rank without a GPU beside others with one, more ranks than
/// GPUs, two ranks on one GPU.
Device assign_device(World& world, const std::string& asked);

/// CPU threads for this rank where nobody says a number: the processors it may use, shared with the ranks of its host
/// that may use the same ones. At least 1.
int fair_threads(World& world);

}  // namespace llmz::dist
