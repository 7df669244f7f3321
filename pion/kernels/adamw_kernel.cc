// SPDX-License-Identifier: Apache-2.0
// Built once per CPU target with that target's flags; see gemm_kernel.cc for what
// follows.

#include <cstddef>
#include <cstdint>

#include "pion/kernels/elementwise_lanes.h"

namespace pion::PION_TARGET {

namespace {

struct Constants {
  F32 beta1, share1, beta2, share2, step_size, inverse_correction, eps, decay;
  GradientLanes gradient;
  bool moves;
  explicit Constants(const AdamWCall& call)
      : beta1(broadcast(call.beta1)),
        share1(broadcast(call.share1)),
        beta2(broadcast(call.beta2)),
        share2(broadcast(call.share2)),
        step_size(broadcast(call.step_size)),
        inverse_correction(broadcast(call.inverse_correction)),
        eps(broadcast(call.eps)),
        decay(broadcast(call.decay)),
        gradient(call.gradient),
        moves(call.moves) {}
};

// PION_LANES entries.
template <class G>
inline void step(float* weight, const G* gradient, float* exp_avg, float* exp_avg_sq,
                 const Constants& c, Squares& squares) {
  prefetch(weight), prefetch(gradient), prefetch(exp_avg), prefetch(exp_avg_sq);
  const F32 g = c.gradient(gradient);
  const F32 m = c.beta1 * load(exp_avg) + c.share1 * g;
  const F32 v = c.beta2 * load(exp_avg_sq) + c.share2 * g * g;
  store(exp_avg, m);
  store(exp_avg_sq, v);
  const F32 u = c.step_size * m / (square_root(v) * c.inverse_correction + c.eps);
  squares.add(u);
  if (c.moves) store(weight, load(weight) * c.decay - u);
}

template <class G>
double steps(const AdamWCall& call, const G* gradient) {
  const Constants constants(call);
  float *const weight = call.weight, *const exp_avg = call.exp_avg;
  float* const exp_avg_sq = call.exp_avg_sq;
  const std::size_t n = call.n;
  Squares squares;
  std::size_t i = 0;
  for (; i + PION_LANES <= n; i += PION_LANES) {
    step(weight + i, gradient + i, exp_avg + i, exp_avg_sq + i, constants, squares);
  }
  if (i < n) {
    Rest<float> w(weight + i, n - i), m(exp_avg + i, n - i), v(exp_avg_sq + i, n - i);
    const Rest<const G> g(gradient + i, n - i);
    step(w.entries, g.entries, m.entries, v.entries, constants, squares);
    w.write_back(), m.write_back(), v.write_back();
  }
  return squares.total();
}

}  // namespace

double adamw(const AdamWCall& call) {
  const GradientEntries& g = call.gradient;
  return g.f32 != nullptr ? steps(call, g.f32) : steps(call, g.bf16);
}

}  // namespace pion::PION_TARGET
