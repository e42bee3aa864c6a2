#pragma once

#include "llmz/config/fields.h"
#include "llmz/optim/config.h"

namespace llmz::optim {

/// `optimizer` and `schedule`.
config::Fields<OptimizerConfig> optimizer_fields();
config::Fields<ScheduleConfig> schedule_fields();

}  // namespace llmz::optim
