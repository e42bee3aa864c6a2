// All-reduces of so many bytes over two ranks, and empty round trips: what the network between them really gives.
//   mpirun -np 2 probe BYTES REPEATS
// Prints one line: host names, ranks on rank 0's host, median seconds of an all-reduce, microseconds of a round trip.
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double all_reduce_seconds(std::vector<float>& values) {
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  return MPI_Wtime() - start;
}

double round_trip_seconds(int rank) {
  char byte = 0;
  const double start = MPI_Wtime();
  if (rank == 0) {
    MPI_Send(&byte, 1, MPI_CHAR, 1, 0, MPI_COMM_WORLD);
    MPI_Recv(&byte, 1, MPI_CHAR, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  } else {
    MPI_Recv(&byte, 1, MPI_CHAR, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Send(&byte, 1, MPI_CHAR, 0, 0, MPI_COMM_WORLD);
  }
  return MPI_Wtime() - start;
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, ranks = 0, local = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (argc != 3 || ranks != 2) {
    std::fprintf(stderr, "usage: mpirun -np 2 probe BYTES REPEATS\n");
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Comm host;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
  MPI_Comm_size(host, &local);
  std::array<char, 64> name = {}, names[2];
  gethostname(name.data(), name.size() - 1);
  MPI_Gather(name.data(), 64, MPI_CHAR, names, 64, MPI_CHAR, 0, MPI_COMM_WORLD);

  std::vector<float> values(std::strtoul(argv[1], nullptr, 10) / sizeof(float), 1.0F);
  std::vector<double> reduces, trips;
  for (int i = 0; i < std::atoi(argv[2]); ++i) reduces.push_back(all_reduce_seconds(values));
  for (int i = 0; i < 200; ++i) trips.push_back(round_trip_seconds(rank));
  if (rank == 0) {
    std::printf("%s %s %d %.5f %.1f\n", names[0].data(), names[1].data(), local, median(reduces), median(trips) * 1e6);
  }
  MPI_Finalize();
  return 0;
}
