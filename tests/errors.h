#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "llmz/core/error.h"

namespace llmz::testing {

/// Message of the Error that `action` throws; "no error" when it throws none.
template <class Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// The first of `parts` that `message` lacks; empty when it has them all.
inline std::string missing_part(std::string_view message, std::initializer_list<std::string_view> parts) {
  for (const std::string_view part : parts) {
    if (message.find(part) == std::string_view::npos)
      return "\"" + std::string(part) + "\" in: " + std::string(message);
  }
  return "";
}

}  // namespace llmz::testing

/// Checks that `expression` throws llmz::Error with a message of one line that has every one of the given parts.
#define CHECK_ERROR(expression, ...)                                                   \
  do {                                                                                 \
    const std::string message_ = llmz::testing::error_of([&] { (void)(expression); }); \
    CHECK(llmz::testing::missing_part(message_, {__VA_ARGS__}) == "");                 \
    CHECK(message_.find('\n') == std::string::npos);                                   \
  } while (false)
