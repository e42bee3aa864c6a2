#include "src/core/system_files.h"

#include <algorithm>
#include <fstream>
#include <functional>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace llmz::system_files {
namespace {

namespace fs = std::filesystem;

std::string trim(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t\n");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1));
}

/// The first line of a file; empty when it cannot be read.
std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return trim(line);
}

std::optional<std::int64_t> to_integer(const std::string& text) {
  std::int64_t value = 0;
  std::istringstream stream(text);
  if (!(stream >> value)) return std::nullopt;
  return value;
}

std::optional<std::int64_t> read_integer(const fs::path& path) { return to_integer(first_line(path)); }

/// The value of "key: value" or "key value" in a file of such lines; empty when it is not there.
std::string find_value(const fs::path& path, std::string_view key, char separator = ':') {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    const auto end = line.find(separator);
    if (end != std::string::npos && trim(line.substr(0, end)) == key) return trim(line.substr(end + 1));
  }
  return "";
}

/// "VmRSS:  1234 kB" in bytes; 0 when it is not there.
std::int64_t find_kilobytes(const fs::path& path, std::string_view key) {
  return to_integer(find_value(path, key)).value_or(0) * 1024;
}

// --- control groups -------------------------------------------------------------------------------------------------

/// The folder of this process's group under one controller of version 1 ("memory", "cpu"), or under version 2 ("").
/// The path that /proc names may lie outside of what a container has mounted; then only `mount` itself is looked at.
struct Group {
  fs::path mount;
  fs::path folder;
};

std::optional<Group> find_group(const fs::path& root, const std::string& controller) {
  std::ifstream file(root / "proc/self/cgroup");  // lines "4:memory:/a/b", in version 2 "0::/a/b"
  std::string line;
  while (std::getline(file, line)) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    if (names.find("," + controller + ",") == std::string::npos) continue;
    const fs::path mount = root / "sys/fs/cgroup" / controller;
    const fs::path folder = (mount / fs::path(line.substr(second + 1)).relative_path()).lexically_normal();
    return Group{mount, fs::is_directory(folder) ? folder : mount};
  }
  return std::nullopt;
}

/// A limit of any group around the process holds: `visit` sees its own folder, then each one above it.
void walk_up(const Group& group, const std::function<void(const fs::path&)>& visit) {
  fs::path folder = group.folder;
  const std::string mount = group.mount.lexically_normal().string();
  while (folder.string().size() >= mount.size() && folder.string().rfind(mount, 0) == 0) {
    visit(folder);
    if (folder.string().size() == mount.size() || folder == folder.parent_path()) break;
    folder = folder.parent_path();
  }
}

void tighten(double& quota, std::optional<std::int64_t> time, std::optional<std::int64_t> period) {
  if (!time || !period || *time <= 0 || *period <= 0) return;
  const double processors = static_cast<double>(*time) / static_cast<double>(*period);
  quota = quota > 0 ? std::min(quota, processors) : processors;
}

double cpu_quota(const fs::path& root) {
  double quota = 0;
  if (const auto group = find_group(root, "")) {
    walk_up(*group, [&](const fs::path& folder) {
      std::istringstream line(first_line(folder / "cpu.max"));  // "max 100000" or "150000 100000", microseconds
      std::string time, period;
      line >> time >> period;
      if (time != "max") tighten(quota, to_integer(time), to_integer(period));
    });
  }
  if (const auto group = find_group(root, "cpu")) {
    walk_up(*group, [&](const fs::path& folder) {
      tighten(quota, read_integer(folder / "cpu.cfs_quota_us"), read_integer(folder / "cpu.cfs_period_us"));
    });
  }
  return quota;
}

/// How the two versions of control groups name the same numbers.
struct MemoryFiles {
  const char* controller;
  const char* limit;
  const char* used;
  const char* reclaimable;  // key in memory.stat: file pages that the group gives back under pressure
};
constexpr MemoryFiles kMemoryFiles[] = {
    {"", "memory.max", "memory.current", "inactive_file"},
    {"memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}};

void apply_memory_limits(const fs::path& root, const MemoryFiles& names, MemoryInfo& info) {
  const auto group = find_group(root, names.controller);
  if (!group) return;
  walk_up(*group, [&](const fs::path& folder) {
    const auto limit = read_integer(folder / names.limit);  // "max" is no integer
    // Version 1 writes "unlimited" as a number near 2^63: no machine's memory.
    if (!limit || *limit <= 0 || (info.total > 0 && *limit >= info.total)) return;
    const auto used = read_integer(folder / names.used).value_or(0);
    const auto reclaimable = to_integer(find_value(folder / "memory.stat", names.reclaimable, ' ')).value_or(0);
    info.total = *limit;
    info.available = std::clamp(*limit - used + reclaimable, std::int64_t{0}, info.available);
    info.limited_by_cgroup = true;
  });
}

// --- processors -----------------------------------------------------------------------------------------------------

/// Counts of a list such as "0-3,8,10-11".
int count_list(const std::string& list) {
  int count = 0;
  std::istringstream ranges(list);
  std::string range;
  while (std::getline(ranges, range, ',')) {
    const auto dash = range.find('-');
    const auto first = to_integer(range.substr(0, dash));
    const auto last = dash == std::string::npos ? first : to_integer(range.substr(dash + 1));
    if (first && last && *last >= *first) count += static_cast<int>(*last - *first + 1);
  }
  return count;
}

/// A core is named by the list of its hyper-threads; without that, every logical processor is taken for one.
int count_cores(const fs::path& root, const std::vector<int>& usable) {
  std::set<std::string> cores;
  for (const int cpu : usable) {
    const std::string name = "cpu" + std::to_string(cpu);
    const std::string siblings = first_line(root / "sys/devices/system/cpu" / name / "topology/thread_siblings_list");
    cores.insert(siblings.empty() ? name : siblings);
  }
  return static_cast<int>(cores.size());
}

struct Features {
  std::set<std::string> names;
  bool has(std::initializer_list<const char*> all) const {
    return std::all_of(all.begin(), all.end(), [&](const char* name) { return names.count(name) > 0; });
  }
};

Features read_features(const fs::path& cpuinfo) {
  std::string line = find_value(cpuinfo, "flags");
  if (line.empty()) line = find_value(cpuinfo, "Features");  // ARM
  std::istringstream stream(line);
  Features features;
  for (std::string name; stream >> name;) features.names.insert(name);
  return features;
}

std::string isa_level(const Features& features) {
  // The psABI's levels, which the kernels' clones are compiled for: "abm" is the kernel's name for lzcnt.
  const bool v3 = features.has({"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm"});
  const bool v4 = v3 && features.has({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"});
  return v4 ? "avx512" : v3 ? "avx2" : "baseline";
}

std::string matmul_features(const Features& features) {
  std::string found;
  for (const char* name : {"avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
                           "amx_tile", "amx_bf16", "amx_int8", "asimd", "sve", "sve2", "bf16", "i8mm"}) {
    if (!features.has({name})) continue;
    if (!found.empty()) found += ' ';
    found += name;
  }
  return found;
}

}  // namespace

CpuInfo read_cpu_info(const fs::path& root, const std::vector<int>& usable) {
  const fs::path cpuinfo = root / "proc/cpuinfo";
  const Features features = read_features(cpuinfo);
  CpuInfo info;
  info.model = find_value(cpuinfo, "model name");
  if (info.model.empty()) info.model = "unknown";
  info.isa = isa_level(features);
  info.features = matmul_features(features);
  info.logical_usable = static_cast<int>(usable.size());
  info.logical_online = std::max(count_list(first_line(root / "sys/devices/system/cpu/online")), info.logical_usable);
  info.physical_usable = count_cores(root, usable);
  info.quota = cpu_quota(root);
  return info;
}

MemoryInfo read_memory_info(const fs::path& root) {
  const fs::path meminfo = root / "proc/meminfo";
  MemoryInfo info;
  info.total = find_kilobytes(meminfo, "MemTotal");
  info.available = find_kilobytes(meminfo, "MemAvailable");
  for (const MemoryFiles& names : kMemoryFiles) apply_memory_limits(root, names, info);
  return info;
}

ProcessMemory read_process_memory(const fs::path& root) {
  const fs::path status = root / "proc/self/status";
  ProcessMemory memory;
  memory.resident = find_kilobytes(status, "VmRSS");
  memory.peak = std::max(find_kilobytes(status, "VmHWM"), memory.resident);
  return memory;
}

}  // namespace llmz::system_files
