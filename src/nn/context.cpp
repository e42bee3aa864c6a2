#include "llmz/nn/context.h"

namespace llmz::nn {

void BuildContext::add(Parameter& p, Shape shape) {
  p.weight = memory.persistent(p.name, Category::weights, shape, precision.weight);
  if (gradients) p.grad.dense = memory.persistent(p.name + ".grad", Category::gradients, shape, precision.statistic());
  parameters.push_back(&p);
}

}  // namespace llmz::nn
