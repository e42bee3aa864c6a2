#pragma once

#include <string_view>

namespace llmz::nn::role {

/// What layers tag the buffers with that may stay until backward (PlannedBuffer::role).
inline constexpr std::string_view norm_input = "norm + input";  ///< x̂ of a norm, and the input of the linear layer
inline constexpr std::string_view qkv = "q, k, v";
inline constexpr std::string_view attention_output = "attention out";
inline constexpr std::string_view gate_up = "gate, up";
inline constexpr std::string_view down_input = "down input";
inline constexpr std::string_view block_input = "block input";
inline constexpr std::string_view statistics = "statistics";  ///< rstd, log-sum-exp
inline constexpr std::string_view head = "head";

}  // namespace llmz::nn::role
