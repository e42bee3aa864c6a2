#include "src/dist/placement.h"

#include <algorithm>
#include <map>
#include <set>

#include "llmz/core/system.h"

namespace llmz::dist {
namespace {

using Ranks = std::vector<RankView>;
using Places = std::vector<size_t>;  // some of the ranks, in order

/// "rank 2 (node7)"
std::string who(const Ranks& ranks, size_t r) { return fmt::format("rank {} ({})", r, ranks[r].host); }

/// The first few by name.
std::string who(const Ranks& ranks, const Places& some) {
  constexpr size_t kNamed = 4;
  std::string text;
  for (size_t i = 0; i < std::min(kNamed, some.size()); ++i) text += (i > 0 ? ", " : "") + who(ranks, some[i]);
  return some.size() > kNamed ? fmt::format("{} and {} more", text, some.size() - kNamed) : text;
}

using Wish = DeviceWish::Kind;
Wish wish_of(const RankView& rank) { return device_wish(rank.asked).kind; }

template <class Holds>
Places those(const Ranks& ranks, Holds&& holds) {
  Places result;
  for (size_t r = 0; r < ranks.size(); ++r) {
    if (holds(ranks[r])) result.push_back(r);
  }
  return result;
}

/// Whether the run is on GPUs. Error where the ranks do not agree.
bool on_gpus(const Ranks& ranks) {
  const Places cpu = those(ranks, [](const RankView& r) { return wish_of(r) == Wish::cpu; });
  const Places automatic = those(ranks, [](const RankView& r) { return wish_of(r) == Wish::automatic; });
  const Places blind = those(ranks, [](const RankView& r) { return wish_of(r) != Wish::cpu && r.gpus.empty(); });
  const size_t n = ranks.size();
  if (cpu.size() == n || (automatic.size() == n && blind.size() == n)) return false;
  if (!cpu.empty()) {
    fail(
        "train.device is cpu for {} and not for the other ranks; all ranks of a run compute on the same kind of device",
        who(ranks, cpu));
  }
  if (blind.empty()) return true;
  if (automatic.size() == n) {
    fail("{} of {} ranks see no GPU, the others do: {}: {}; mend that, or set train.device to cpu for all",
         blind.size(), n, who(ranks, blind), ranks[blind.front()].reason);
  }
  fail("train.device asks for GPUs, but {} sees none: {}", who(ranks, blind), ranks[blind.front()].reason);
}

/// Gives the ranks of one host that did not name a GPU theirs: the one whose number is the rank's place on the host.
void place_host(const Ranks& ranks, const Places& here, std::vector<Device>& devices) {
  bool enough = true, one_each = true;
  std::set<std::string> gpus;
  for (size_t place = 0; place < here.size(); ++place) {
    const RankView& rank = ranks[here[place]];
    enough &= place < rank.gpus.size();
    one_each &= rank.gpus.size() == 1;
    gpus.insert(rank.gpus.begin(), rank.gpus.end());
  }
  // A launcher that shows each rank another GPU (Slurm's --gpus-per-task) has chosen already.
  const bool chosen = one_each && gpus.size() == here.size();
  if (!enough && !chosen) {
    const std::string& host = ranks[here.front()].host;
    check(gpus.size() >= here.size(),
          "host {} runs {} ranks and has {} GPU{}: start at most {} there (mpirun --map-by ppr:{}:node ...)", host,
          here.size(), gpus.size(), gpus.size() == 1 ? "" : "s", gpus.size(), gpus.size());
    fail(
        "host {} runs {} ranks, and not each of them sees as many GPUs: let each see all of the host's or one of its "
        "own (CUDA_VISIBLE_DEVICES; Slurm's --gpus-per-task)",
        host, here.size());
  }
  for (size_t place = 0; place < here.size(); ++place) {
    devices[here[place]] = {DeviceType::cuda, chosen ? 0 : static_cast<int>(place)};
  }
}

/// The GPU that the rank named: "cuda:k".
Device named(const Ranks& ranks, size_t r) {
  const Device device = device_from_name(ranks[r].asked);
  const size_t seen = ranks[r].gpus.size();
  check(static_cast<size_t>(device.index) < seen, "{} is to take {}, but sees {} GPU{}", who(ranks, r), ranks[r].asked,
        seen, seen == 1 ? "" : "s");
  return device;
}

void check_apart(const Ranks& ranks, const std::vector<Device>& devices) {
  std::map<std::string, size_t> owners;
  for (size_t r = 0; r < ranks.size(); ++r) {
    const std::string& gpu = ranks[r].gpus[static_cast<size_t>(devices[r].index)];
    const auto [owner, is_first] = owners.try_emplace(gpu, r);
    check(is_first,
          "rank {} and rank {} would both take {} of host {} ({}), and each needs its own: with train.device = "
          "\"cuda\" a rank takes the GPU of its place on its host",
          owner->second, r, device_name(devices[r]), ranks[r].host, gpu);
  }
}

}  // namespace

std::vector<Device> place_ranks(const std::vector<RankView>& ranks) {
  std::vector<Device> devices(ranks.size());
  if (!on_gpus(ranks)) return devices;
  std::map<int, Places> machines;  // of ranks that named no GPU
  for (size_t r = 0; r < ranks.size(); ++r) {
    if (wish_of(ranks[r]) == Wish::this_gpu) {
      devices[r] = named(ranks, r);
    } else {
      machines[ranks[r].machine].push_back(r);
    }
  }
  for (const auto& [machine, here] : machines) place_host(ranks, here, devices);
  check_apart(ranks, devices);
  return devices;
}

}  // namespace llmz::dist
