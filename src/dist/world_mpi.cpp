#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <numeric>

#include "src/dist/communicator_mpi.h"
#include "src/dist/implementations.h"
#include "src/dist/mpi_thread.h"

namespace llmz::dist {
namespace {

int rank_of(MPI_Comm group) {
  int rank = 0;
  must_mpi(MPI_Comm_rank(group, &rank), "MPI_Comm_rank");
  return rank;
}

int size_of(MPI_Comm group) {
  int size = 0;
  must_mpi(MPI_Comm_size(group, &size), "MPI_Comm_size");
  return size;
}

struct Place {
  int rank = 0, size = 1;
  std::vector<int> machines;  ///< of all ranks
  std::string host;
};

Place find_place() {
  Place place;
  place.rank = rank_of(MPI_COMM_WORLD);
  place.size = size_of(MPI_COMM_WORLD);
  MPI_Comm on_host = MPI_COMM_NULL;
  must_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, place.rank, MPI_INFO_NULL, &on_host),
           "MPI_Comm_split_type");
  int machine = place.rank;  // that of the first there
  must_mpi(MPI_Bcast(&machine, 1, MPI_INT, 0, on_host), "MPI_Bcast");
  place.machines.resize(static_cast<size_t>(place.size));
  must_mpi(MPI_Allgather(&machine, 1, MPI_INT, place.machines.data(), 1, MPI_INT, MPI_COMM_WORLD), "MPI_Allgather");
  MPI_Comm_free(&on_host);
  char name[MPI_MAX_PROCESSOR_NAME] = {};
  int length = 0;
  must_mpi(MPI_Get_processor_name(name, &length), "MPI_Get_processor_name");
  place.host = name;
  return place;
}

class MpiWorld final : public World {
 public:
  MpiWorld(std::shared_ptr<MpiThread> thread, const Place& place)
      : World(place.rank, place.size), thread_(std::move(thread)) {
    set_hosts(all_gather(place.host), place.machines);
  }
  std::string_view name() const override { return "MPI"; }

  std::vector<std::string> all_gather(const std::string& mine) override {
    std::vector<int> lengths(static_cast<size_t>(size())), begins(lengths.size());
    std::string all;
    thread_->run([&] {
      const int length = static_cast<int>(mine.size());
      must_mpi(MPI_Allgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, MPI_COMM_WORLD), "MPI_Allgather");
      std::exclusive_scan(lengths.begin(), lengths.end(), begins.begin(), 0);
      all.resize(static_cast<size_t>(begins.back() + lengths.back()));
      must_mpi(MPI_Allgatherv(mine.data(), length, MPI_CHAR, all.data(), lengths.data(), begins.data(), MPI_CHAR,
                              MPI_COMM_WORLD),
               "MPI_Allgatherv");
    });
    std::vector<std::string> texts;
    for (size_t i = 0; i < lengths.size(); ++i) {
      texts.push_back(all.substr(static_cast<size_t>(begins[i]), static_cast<size_t>(lengths[i])));
    }
    return texts;
  }

  int64_t max(int64_t mine) override {
    int64_t largest = 0;
    thread_->run(
        [&] { must_mpi(MPI_Allreduce(&mine, &largest, 1, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD), "MPI_Allreduce"); });
    return largest;
  }

  double sum(double mine) override {
    double total = 0;
    thread_->run([&] {
      // Not MPI_Allreduce, of which only good implementations give all ranks the same bits; decisions hang on them.
      must_mpi(MPI_Reduce(&mine, &total, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD), "MPI_Reduce");
      must_mpi(MPI_Bcast(&total, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD), "MPI_Bcast");
    });
    return total;
  }

  /// The MPI thread may wait inside a collective for ever, so this thread calls MPI too, and does not rely on it.
  [[noreturn]] void abort() override {
    std::thread([] { MPI_Abort(MPI_COMM_WORLD, 1); }).detach();
    std::this_thread::sleep_for(std::chrono::seconds(2));
    std::_Exit(1);
  }

 private:
  std::unique_ptr<Communicator> make_cpu_communicator() override {
    return make_mpi_communicator(thread_, rank(), size());
  }

  std::shared_ptr<MpiThread> thread_;
};

}  // namespace

std::string mpi_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  must_mpi(MPI_Get_library_version(text, &length), "MPI_Get_library_version");
  std::string line = text;
  line.resize(std::min(line.size(), line.find_first_of("\r\n")));  // MPICH tells its build options in more
  std::replace(line.begin(), line.end(), '\t', ' ');
  return line;
}

std::unique_ptr<World> make_mpi_world() {
  auto thread = MpiThread::get();
  Place place;
  thread->run([&] { place = find_place(); });
  const int started = launch_of_this_process().size;
  if (place.size == 1 && started > 1) {
    fail(
        "the launcher has started {} processes, and MPI ({}) sees this one alone: start llmz with the mpirun of that "
        "MPI, or with srun --mpi=pmix",
        started, mpi_library());
  }
  return std::make_unique<MpiWorld>(std::move(thread), place);
}

}  // namespace llmz::dist
