#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace llmz::data {

// Ids are copied to and from the file as they lie in memory.
static_assert(std::endian::native == std::endian::little, "llmz shards are little-endian, and so must the machine be");

/// Byte offsets of the llmz shard header; docs/data.md explains the fields.
struct ShardLayout {
  static constexpr std::array<char, 8> kMagic = {'l', 'l', 'm', 'z', 's', 'h', 'r', 'd'};
  static constexpr uint32_t kVersion = 1;
  static constexpr size_t kVersionAt = 8;
  static constexpr size_t kBytesPerIdAt = 12;
  static constexpr size_t kTokensAt = 16;
  static constexpr size_t kVocabSizeAt = 24;
  static constexpr size_t kTokenizerHashAt = 32;
  static constexpr size_t kTextBytesAt = 40;
  static constexpr size_t kPayloadCrcAt = 48;
  static constexpr size_t kHeaderCrcAt = 60;  // 52 … 59 are zero
  static constexpr size_t kBytes = 64;
};

/// llm.c, dev/data: 256 int32, then uint16 ids.
struct LlmcLayout {
  static constexpr int32_t kMagic = 20240520;
  static constexpr int32_t kVersion = 1;
  static constexpr size_t kBytes = 256 * sizeof(int32_t);
};

}  // namespace llmz::data
