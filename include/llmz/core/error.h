#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include <spdlog/fmt/fmt.h>
#if __has_include(<spdlog/fmt/ranges.h>)
#include <spdlog/fmt/ranges.h>
#else  // spdlog before 1.10 (Ubuntu 22.04), which has fmt beside it
#include <fmt/ranges.h>
#endif

namespace llmz {

/// Everything the library throws at a user: one line that says what is wrong, where, and how to mend it.
/// Only `main` turns it into an exit code.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// Throws `Error` unless `ok`. The message is formatted only on failure.
template <class... Args>
void check(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) fail(format, std::forward<Args>(args)...);
}

}  // namespace llmz
