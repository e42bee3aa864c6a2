#include "llmz/core/system.h"
#include "src/dist/implementations.h"
#include "src/dist/placement.h"

namespace llmz::dist {
namespace {

/// One line an entry: what is asked, why there is no GPU, then the GPUs.
std::string as_text(const std::string& asked, int machine) {
  const CudaInfo info = device_wish(asked).kind == DeviceWish::Kind::cpu ? CudaInfo() : cuda_info();
  std::string text = asked + "\n" + info.reason + "\n";
  for (size_t i = 0; i < info.devices.size(); ++i) {
    const std::string& identity = info.devices[i].identity;
    text += (identity.empty() ? fmt::format("GPU number {} of machine {}", i, machine) : identity) + "\n";
  }
  return text;
}

RankView from_text(int machine, const std::string& host, const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return {.machine = machine,
          .host = host,
          .asked = lines[0],
          .gpus = {lines.begin() + 2, lines.end()},
          .reason = lines[1]};
}

}  // namespace

Device assign_device(World& world, const std::string& asked) {
  if (world.size() == 1) return device_from_name(asked);
  world.together([&] { device_wish(asked); });  // is it a name at all?
  const std::vector<std::string> told = world.all_gather(as_text(asked, world.machine(world.rank())));
  std::vector<RankView> ranks;
  for (size_t r = 0; r < told.size(); ++r)
    ranks.push_back(from_text(world.machine(static_cast<int>(r)), world.hosts()[r], told[r]));
  Device device;
  world.together([&] { device = place_ranks(ranks)[static_cast<size_t>(world.rank())]; });
  return device;
}

}  // namespace llmz::dist
