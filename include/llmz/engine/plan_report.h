#pragma once

#include <string>

#include "llmz/core/memory.h"
#include "llmz/engine/engine.h"

namespace llmz::engine {

/// Bytes by category at the moment of the peak, as a table for people.
std::string plan_table(const MemoryPlan& plan);

/// Every buffer of the plan: persistent ones, then each program's spans with their life, for `llmz plan --verbose`.
std::string plan_listing(const MemoryPlan& plan);

/// What `ranks` processes move between them, each kind of collective and what one of them sends (Traffic::sent), and
/// the time that links of some speeds take for a step of it, for people.
std::string traffic_table(const StepTraffic& traffic, int ranks);

/// The totals as JSON, bytes as integers: {"weights": …, "packing": …, "total": …, "peak_program": …}. The plan of one
/// rank among several has "between_ranks" too (docs/distributed.md, Planning).
std::string plan_json(const MemoryPlan& plan, int ranks = 1, const StepTraffic& traffic = {});

}  // namespace llmz::engine
