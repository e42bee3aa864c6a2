#include "catch.h"
#include "llmz/core/error.h"
#include "llmz/core/log.h"

TEST_CASE("the log level is one of a few words", "[log]") {
  const auto before = spdlog::default_logger();
  llmz::init_logging("warn");
  CHECK(spdlog::default_logger()->level() == spdlog::level::warn);
  llmz::init_logging("error");
  CHECK(spdlog::default_logger()->level() == spdlog::level::err);
  llmz::init_logging("off");
  CHECK(spdlog::default_logger()->level() == spdlog::level::off);
  CHECK_THROWS_WITH(llmz::init_logging("loud"), contains("loud") && contains("debug"));
  spdlog::set_default_logger(before);
}

TEST_CASE("check formats its message only when it fails", "[error]") {
  CHECK_NOTHROW(llmz::check(true, "{}", 1));
  CHECK_THROWS_WITH(llmz::check(false, "key '{}' is {}", "rank", 3), "key 'rank' is 3");
}
