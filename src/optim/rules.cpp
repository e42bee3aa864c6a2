#include "llmz/optim/rule.h"

namespace llmz::optim {

extern const RuleRow kAdamW, kAdamWFactored, kAdamWSubspace;

namespace {

constexpr const RuleRow* kRules[] = {&kAdamW, &kAdamWFactored, &kAdamWSubspace};

}  // namespace

RuleTable rule_table() { return kRules; }

}  // namespace llmz::optim
