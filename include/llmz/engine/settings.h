#pragma once

#include "llmz/config/fields.h"
#include "llmz/engine/ranks.h"

namespace llmz::train {

/// `distributed`.
config::Fields<DistributedConfig> distributed_fields();

}  // namespace llmz::train
