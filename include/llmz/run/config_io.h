#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "llmz/run/config.h"

namespace llmz::run {

/// Reads the JSON file at `path` or, where there is none, the built-in configuration of that name, then applies
/// `overrides` ("a.b=value", in order; the last one wins) and checks the result with `validate`. docs/config.md
/// describes the format. Throws Error that names file, line and key: not JSON, unknown key (with the nearest known
/// one), duplicate key, wrong type, value out of range, keys that do not fit together.
RunConfig load_run_config(const std::string& path, const std::vector<std::string>& overrides = {});

/// The same from text. `source` stands in errors for the file; model names are looked up beside it.
RunConfig parse_run_config(std::string_view json, const std::string& source,
                           const std::vector<std::string>& overrides = {});

/// Every key with its value, defaults included, in the order of the documentation; reading it back gives the same
/// configuration, whatever the defaults are by then.
std::string to_json(RunConfig config);

/// Only the keys that differ from the defaults, for a screen.
std::string changes_json(RunConfig config);

/// Text of docs/config.md.
std::string config_reference_markdown();

/// Checks what single keys cannot: that the model's shape is possible, that batches divide, that lengths fit. Throws
/// Error naming the keys. Loading has done it already; meant for configurations made or changed by a program.
void validate(const RunConfig& config);

/// `validate`, and that there are data to train on.
void validate_for_training(const RunConfig& config);

}  // namespace llmz::run
