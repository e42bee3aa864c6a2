#include "llmz/report/rank_map.h"

#include <algorithm>
#include <chrono>

#include "llmz/core/planned.h"
#include "llmz/core/system.h"
#include "llmz/core/transfer.h"
#include "llmz/run/placement.h"

namespace llmz::report {
namespace {

std::string plural(size_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

/// "NVIDIA H100 80GB HBM3, GPU-3f0c…": its name, and what tells it from others of the name.
std::string gpu_text(const CudaDevice& gpu) {
  return gpu.identity.empty() ? gpu.name : fmt::format("{}, {}", gpu.name, gpu.identity);
}

std::string device_text(const CudaInfo& info, const RankMap& map) {
  if (map.device.type == DeviceType::cpu)
    return fmt::format("cpu, {}", plural(static_cast<size_t>(map.threads), "thread"));
  return fmt::format("{}, {}", device_name(map.device),
                     gpu_text(info.devices.at(static_cast<size_t>(map.device.index))));
}

std::string sight_text(const CudaInfo& info) {
  if (info.devices.empty()) return "sees no GPU: " + info.reason;
  std::vector<std::string> gpus;
  for (const CudaDevice& gpu : info.devices) gpus.push_back(gpu_text(gpu));
  return fmt::format("sees {}: {}", plural(gpus.size(), "GPU"), fmt::join(gpus, "; "));
}

}  // namespace

RankMap map_ranks(dist::World& world) {
  const CudaInfo info = cuda_info();
  RankMap map;
  map.threads = run::use_threads(0, dist::fair_threads(world));
  std::string mine;
  try {
    map.device = dist::assign_device(world, "auto");
    mine = device_text(info, map);
  } catch (const dist::SharedError& e) {
    map.problem = e.what();
    mine = sight_text(info);
  }
  map.hosts = world.hosts();
  map.devices = world.all_gather(mine);
  return map;
}

Finding try_connection(dist::World& world, const RankMap& map) {
  if (!map.problem.empty()) return {State::broken, "ranks", map.problem, "`llmz train` would stop with these words"};
  const Planned<Tensor> number(
      map.device,
      [](Memory& memory) { return memory.persistent("connection.number", Category::communication, {1}, DType::f32); },
      [](Tensor&, Exec&) {});
  Memory& memory = number.memory();
  const auto ranks = world.make_communicator(memory);
  double seconds = 0;
  for (int round = 0; round < 2; ++round) {  // the first makes connections
    const float mine = static_cast<float>(world.rank() + 1);
    const auto start = std::chrono::steady_clock::now();
    copy_to_device<float>(memory, *number, {&mine, 1});
    ranks->all_reduce(*number);
    const float sum = host_scalar<float>(memory, *number);
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const int n = world.size();
    check(sum == static_cast<float>(n) * static_cast<float>(n + 1) / 2, "{} adds the numbers of {} ranks to {}",
          ranks->name(), n, sum);
  }
  return {State::ok, "ranks", fmt::format("{} connected through {}", world.size(), ranks->name()),
          fmt::format("a sum of one number takes {:.0f} us", seconds * 1e6)};
}

std::string rank_table(const RankMap& map) {
  size_t width = 4;
  for (const std::string& host : map.hosts) width = std::max(width, host.size());
  std::string text = fmt::format("\n{:>4}  {:<{}}  device\n", "rank", "host", width);
  for (size_t rank = 0; rank < map.hosts.size(); ++rank) {
    text += fmt::format("{:>4}  {:<{}}  {}\n", rank, map.hosts[rank], width, map.devices[rank]);
  }
  return text + "\n";
}

}  // namespace llmz::report
