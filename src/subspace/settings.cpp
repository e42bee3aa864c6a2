#include "llmz/subspace/settings.h"

namespace llmz::subspace {

config::Fields<ProjectorConfig> projector_fields() {
  using config::above, config::at_least, config::between;
  using P = ProjectorConfig;
  constexpr double kMaxSteps = 1e12;  // above what any machine trains
  return config::Fields<P>()
      .key("projector", &P::kind, "of a sketch; `prac`: principal and random part", projector_kinds())
      .key(
          "rank", &P::rank,
          "columns of the projector (`prac`: of its principal part): up to 1 a fraction of the tensor's width, above a "
          "number",
          above(0))
      .key("random_rank", &P::random_rank, "`prac`: columns of the random part", above(0))
      .key("random", &P::random, "`prac`: kind of the random part", random_kinds())
      .key("refresh", &P::refresh, "steps between new projectors", between(1, kMaxSteps))
      .key("random_refresh", &P::random_refresh, "`prac`: of the random part alone; 0 = with the principal part",
           between(0, kMaxSteps))
      .key("decomposition", &P::decomposition,
           "principal part by warm-started subspace iteration, or by exact eigen-decomposition", decompositions())
      .key("seed", &P::seed, "of the projector; 0 = made from `train.seed`", at_least(0));
}

}  // namespace llmz::subspace
