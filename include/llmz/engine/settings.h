#pragma once

#include "llmz/config/fields.h"
#include "llmz/engine/ranks.h"

namespace llmz::engine {

/// `distributed`.
config::Fields<DistributedConfig> distributed_fields();

}  // namespace llmz::engine
