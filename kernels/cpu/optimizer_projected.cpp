#include "kernels/cpu/grad_scale.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

template <class M, class G>
LLMZ_INLINE void direction_loop(compute_t<M>* __restrict direction, M* __restrict m, M* __restrict v,
                                const G* __restrict grad, const AdamScalars<compute_t<M>>& s, int64_t n) {
  using Real = compute_t<M>;
  for (int64_t i = 0; i < n; ++i) {
    const Real g = load(grad + i) * s.grad_scale;
    const Real first = s.beta1 * load(m + i) + s.beta1_rest * g;
    const Real second = s.beta2 * load(v + i) + s.beta2_rest * g * g;
    store(m + i, first);
    store(v + i, second);
    direction[i] = first * s.first_correction / (std::sqrt(second) / s.root_correction + s.eps);
  }
}

}  // namespace

void adam_direction(const ProjectedAdamArgs& args, Tensor direction) {
  const std::array flat = merge_dimensions(std::array{direction, args.m, args.v, args.low.factor});
  const ChunkGrid grid(flat[0]);
  with_row_types(std::array{args.m, args.v}, std::array{args.low.factor}, [&]<class M, class G>(M, G) {
    using Real = compute_t<M>;
    const AdamScalars<Real> scalars = adam_scalars<Real>(args);
#pragma omp parallel if (grid.size() > kParallelChunks)
    {
      Operand<Real> out(flat[0]);
      Operand<M> m(flat[1]), v(flat[2]);
      Operand<G> grad(flat[3]);
#pragma omp for schedule(static)
      for (int64_t i = 0; i < grid.size(); ++i) {
        const Chunk c = grid[i];
        simd<direction_loop<M, G>, M>(out.write(c), m.modify(c), v.modify(c), grad.read(c), scalars, c.count);
        out.commit(c);
        m.commit(c);
        v.commit(c);
      }
    }
  });
}

}  // namespace llmz::cpu
