#pragma once

#include "llmz/config/schema.h"
#include "llmz/run/config.h"

namespace llmz::run {

/// Every key of a RunConfig: the sections of a run, put together from what its layers say of their settings. All there
/// is to know about a key stands at its component once; parsing, printing, overrides, errors and docs/config.md are
/// made from it.
const config::Schema& schema();

}  // namespace llmz::run
