#pragma once

#include "llmz/config/fields.h"
#include "llmz/subspace/config.h"

namespace llmz::subspace {

/// The projector of a sketch or of low-rank weight gradients.
config::Fields<ProjectorConfig> projector_fields();

}  // namespace llmz::subspace
