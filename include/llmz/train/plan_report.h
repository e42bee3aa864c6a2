#pragma once

#include <string>

#include "llmz/core/memory.h"

namespace llmz::train {

/// Bytes by category at the moment of the peak, as a table for people.
std::string plan_table(const MemoryPlan& plan);

/// Every buffer of the plan: persistent ones, then each program's spans with their life, for `llmz plan --verbose`.
std::string plan_listing(const MemoryPlan& plan);

/// The totals as JSON, bytes as integers: {"weights": …, "packing": …, "total": …, "peak_program": …}.
std::string plan_json(const MemoryPlan& plan);

}  // namespace llmz::train
