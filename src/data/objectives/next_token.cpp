#include <algorithm>

#include "llmz/data/objective.h"

namespace llmz::data {
namespace {

class NextToken final : public Objective {
 public:
  int64_t reads(int64_t length) const override { return length + 1; }
  void make(std::span<const int32_t> text, uint64_t, int64_t, std::span<int32_t> tokens,
            std::span<int32_t> targets) const override {
    std::copy_n(text.begin(), tokens.size(), tokens.begin());
    std::copy_n(text.begin() + 1, targets.size(), targets.begin());
  }
};

}  // namespace

const Objective& next_token() {
  static const NextToken objective;
  return objective;
}

}  // namespace llmz::data
