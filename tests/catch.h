#pragma once

#include <string>

// Catch2 v3 (Ubuntu) and v2 (Debian 12) under one name.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;

/// Matches a text that holds `part`; for REQUIRE_THROWS_WITH and REQUIRE_THAT.
inline auto contains(const std::string& part) { return Catch::Matchers::ContainsSubstring(part); }
#else
#include <catch2/catch.hpp>

inline auto contains(const std::string& part) { return Catch::Matchers::Contains(part); }
#endif
