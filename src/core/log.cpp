#include "llmz/core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include "llmz/core/error.h"

namespace llmz {

void init_logging(std::string_view level) {
  const std::string name(level);
  const auto parsed = spdlog::level::from_str(name);
  check(parsed != spdlog::level::off || name == "off",
        "--log-level '{}' is unknown; use trace, debug, info, warn, error or off", level);
  auto logger = std::make_shared<spdlog::logger>("llmz", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_level(parsed);
  logger->set_pattern("%^%l%$: %v");
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace llmz
