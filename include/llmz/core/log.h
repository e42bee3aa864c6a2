#pragma once

#include <string_view>

#include <spdlog/spdlog.h>

namespace llmz {

/// Sends the default spdlog logger to stderr at `level` (trace, debug, info, warn, error, off).
/// Throws Error for another word.
void init_logging(std::string_view level);

}  // namespace llmz
