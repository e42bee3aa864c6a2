#include "ranks/mpi_run.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace llmz::testing {
namespace {

/// The whole of a file under /proc, whose size nobody knows beforehand; empty when the process is gone.
std::string proc_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// "pid (name) state parent ...", where the name may hold spaces and brackets.
pid_t parent_of(const fs::path& process) {
  const std::string stat = proc_file(process / "stat");
  const size_t end = stat.rfind(')');
  if (end == std::string::npos) return -1;
  char state = 0;
  pid_t parent = -1;
  std::istringstream(stat.substr(end + 1)) >> state >> parent;
  return state == 'Z' ? -1 : parent;
}

/// The rank that Open MPI's launcher gave a process; -1 where it gave none.
int rank_of(const fs::path& process) {
  const std::string name = std::string(1, '\0') + "OMPI_COMM_WORLD_RANK=";
  const std::string environment = '\0' + proc_file(process / "environ");
  const size_t at = environment.find(name);
  return at == std::string::npos ? -1 : std::atoi(environment.c_str() + at + name.size());
}

}  // namespace

bool is_open_mpi() { return LLMZ_OPEN_MPI != 0; }

ProcessOptions mpirun() {
  // CI runs in containers, as root.
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
  return {.program = LLMZ_MPIRUN};
}

std::vector<std::string> on_ranks(int ranks, const std::vector<std::string>& command,
                                  const std::vector<std::string>& flags) {
  std::vector<std::string> words = {"-n", std::to_string(ranks)};
  if (is_open_mpi()) {
    // More ranks than cores, which are shared with others: who waits must let others work.
    words.insert(words.end(), {"--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"});
  }
  words.insert(words.end(), flags.begin(), flags.end());
  words.insert(words.end(), command.begin(), command.end());
  return words;
}

std::vector<std::string> llmz_on_ranks(int ranks, const std::vector<std::string>& arguments,
                                       const std::vector<std::string>& flags) {
  std::vector<std::string> command = {LLMZ_PROGRAM};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return on_ranks(ranks, command, flags);
}

Outcome run_on(int ranks, const TinyRun& place, const std::vector<std::string>& arguments,
               const std::vector<std::string>& flags) {
  if (ranks == 1) return place.llmz(arguments);
  return place.llmz(llmz_on_ranks(ranks, arguments, flags), mpirun());
}

std::map<int, pid_t> rank_processes(const Process& mpirun) {
  std::map<int, pid_t> processes;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const int id = std::atoi(entry.path().filename().c_str());
    if (id <= 0 || parent_of(entry.path()) != mpirun.id()) continue;
    const int rank = rank_of(entry.path());
    if (rank >= 0) processes[rank] = id;
  }
  return processes;
}

std::vector<std::string> llmz_errors(const Outcome& outcome) {
  constexpr std::string_view kBegin = "llmz: ";
  std::vector<std::string> errors;
  std::istringstream in(outcome.err);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(kBegin)) errors.push_back(line.substr(kBegin.size()));
  }
  return errors;
}

}  // namespace llmz::testing
