#include "kernels/cpu/grad_scale.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

template <class Real>
LLMZ_INLINE void direction_loop(Real* __restrict direction, Real* __restrict m, Real* __restrict v,
                                const Real* __restrict grad, const AdamScalars<Real>& s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const Real g = grad[i] * s.grad_scale;
    const Real first = s.beta1 * m[i] + s.beta1_rest * g;
    const Real second = s.beta2 * v[i] + s.beta2_rest * g * g;
    m[i] = first;
    v[i] = second;
    direction[i] = first * s.first_correction / (std::sqrt(second) / s.root_correction + s.eps);
  }
}

LLMZ_SIMD_CLONES void direction_row(float* direction, float* m, float* v, const float* grad,
                                    const AdamScalars<float>& s, int64_t n) {
  direction_loop(direction, m, v, grad, s, n);
}
void direction_row(double* direction, double* m, double* v, const double* grad, const AdamScalars<double>& s,
                   int64_t n) {
  direction_loop(direction, m, v, grad, s, n);
}

}  // namespace

void adam_direction(const ProjectedAdamArgs& args, Tensor direction) {
  with_compute_type(direction.dtype, [&]<class Real>(Real) {
    const AdamScalars<Real> scalars = adam_scalars<Real>(args);
    for_each_chunk<Real>(std::array{direction, args.m, args.v, args.low.factor}, [&](auto& t, const Chunk& c) {
      direction_row(t[0].write(c), t[1].modify(c), t[2].modify(c), t[3].read(c), scalars, c.count);
      for (size_t i = 0; i < 3; ++i) t[i].commit(c);
    });
  });
}

}  // namespace llmz::cpu
