#pragma once

#include "llmz/config/fields.h"
#include "llmz/nn/config.h"

namespace llmz::nn {

/// `activations`: the codec of each role, what concerns a whole block, and then the codecs' settings for each role.
config::Fields<ActivationsConfig> activation_fields();

}  // namespace llmz::nn
