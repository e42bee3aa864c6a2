#pragma once

#include <filesystem>
#include <vector>

#include "llmz/core/system.h"

/// What core/system.h reads from /proc and /sys, below a `root` that a test can make itself.
namespace llmz::system_files {

/// `usable`: the logical processors in this process's affinity mask.
CpuInfo read_cpu_info(const std::filesystem::path& root, const std::vector<int>& usable);
MemoryInfo read_memory_info(const std::filesystem::path& root);
ProcessMemory read_process_memory(const std::filesystem::path& root);

}  // namespace llmz::system_files
