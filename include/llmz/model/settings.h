#pragma once

#include "llmz/config/fields.h"
#include "llmz/model/config.h"

namespace llmz::model {

/// `model`.
config::Fields<ModelConfig> model_fields();

}  // namespace llmz::model
