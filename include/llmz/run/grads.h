#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace llmz::run {

/// Rows of S + 1 token ids of one length: a JSON file [[…], …], or the first `rows` windows of `sequence` + 1 tokens of
/// a shard. Throws Error for anything else.
std::vector<std::vector<int32_t>> read_token_rows(const std::filesystem::path& file, int64_t rows, int64_t sequence);

/// Mean loss over all targets of `rows` and its gradient by every parameter of the model at `checkpoint`, written as
/// safetensors: `loss` [1] and each gradient under Hugging Face's name and in its layout. Returns the loss, in nats.
double write_gradients(const std::filesystem::path& checkpoint, const std::vector<std::vector<int32_t>>& rows,
                       const std::filesystem::path& out);

}  // namespace llmz::run
