#pragma once

#include <algorithm>
#include <cmath>

#include "catch.h"
#include "model/harness.h"

namespace llmz::test {

/// Every parameter: `samples` of its elements against (L(w + h) − L(w − h)) / 2h.
inline void check_gradients(ModelHarness& h, int samples) {
  h.train();
  std::vector<std::vector<double>> gradients;
  for (const Parameter* p : h.model().parameters()) {
    const double* g = p->grad.dense.as<double>();
    gradients.emplace_back(g, g + p->grad.dense.numel());
  }
  const RandomStream pick(11, Purpose::test);
  uint64_t draw = 0;
  for (size_t i = 0; i < gradients.size(); ++i) {
    const Parameter& p = *h.model().parameters()[i];
    double* w = p.weight.as<double>();
    double largest = 0;
    for (double g : gradients[i]) largest = std::max(largest, std::abs(g));
    INFO("parameter " << p.name << ", largest gradient " << largest);
    CHECK(largest > 0);
    for (int s = 0; s < samples; ++s) {
      const auto at = static_cast<size_t>(pick.below(4 * draw++, gradients[i].size()));
      const double saved = w[at], step = 1e-5;
      w[at] = saved + step;
      const double up = h.evaluate();
      w[at] = saved - step;
      const double down = h.evaluate();
      w[at] = saved;
      // h² of the third derivative, plus 2^-53 of the loss over h: both near 1e-10 here.
      CHECK(gradients[i][at] == Approx((up - down) / (2 * step)).epsilon(1e-6).margin(2e-9));
    }
  }
}

}  // namespace llmz::test
