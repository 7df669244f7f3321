// SPDX-License-Identifier: Apache-2.0
// Built once per CPU target with that target's flags; see gemm_kernel.cc for what
// follows.

#include <cstddef>
#include <cstdint>

#include "pion/kernels/elementwise_lanes.h"

namespace pion::PION_TARGET {

namespace {

enum class Momentum { kNone, kFirst, kPlain, kNesterov, kFirstNesterov };

struct Constants {
  F32 mu, share, lr, decay;
  GradientLanes gradient;
  bool moves;
  explicit Constants(const SgdCall& call)
      : mu(broadcast(call.mu)),
        share(broadcast(call.share)),
        lr(broadcast(call.lr)),
        decay(broadcast(call.decay)),
        gradient(call.gradient),
        moves(call.moves) {}
};

// PION_LANES entries.
template <Momentum kForm, class G>
inline void step(float* weight, const G* gradient, float* momentum, const Constants& c,
                 Squares& squares) {
  prefetch(weight), prefetch(gradient);
  if constexpr (kForm != Momentum::kNone) prefetch(momentum);
  const F32 g = c.gradient(gradient);
  F32 direction = g;
  if constexpr (kForm != Momentum::kNone) {
    constexpr bool kFirst =
        kForm == Momentum::kFirst || kForm == Momentum::kFirstNesterov;
    if constexpr (!kFirst) direction = c.mu * load(momentum) + c.share * g;
    store(momentum, direction);
    if constexpr (kForm == Momentum::kNesterov || kForm == Momentum::kFirstNesterov) {
      direction = g + c.mu * direction;
    }
  }
  const F32 u = c.lr * direction;
  squares.add(u);
  if (c.moves) store(weight, load(weight) * c.decay - u);
}

template <Momentum kForm, class G>
double steps(const SgdCall& call, const G* gradient) {
  const Constants constants(call);
  float *const weight = call.weight, *const momentum = call.momentum;
  const std::size_t n = call.n;
  Squares squares;
  std::size_t i = 0;
  constexpr bool kHas = kForm != Momentum::kNone;
  for (; i + PION_LANES <= n; i += PION_LANES) {
    step<kForm>(weight + i, gradient + i, kHas ? momentum + i : nullptr, constants,
                squares);
  }
  if (i < n) {
    Rest<float> w(weight + i, n - i);
    Rest<float> b(kHas ? momentum + i : nullptr, kHas ? n - i : 0);
    const Rest<const G> g(gradient + i, n - i);
    step<kForm>(w.entries, g.entries, b.entries, constants, squares);
    w.write_back(), b.write_back();
  }
  return squares.total();
}

template <class G>
double steps_of(const SgdCall& call, const G* gradient) {
  if (call.momentum == nullptr) return steps<Momentum::kNone>(call, gradient);
  if (call.first) {
    return call.nesterov ? steps<Momentum::kFirstNesterov>(call, gradient)
                         : steps<Momentum::kFirst>(call, gradient);
  }
  return call.nesterov ? steps<Momentum::kNesterov>(call, gradient)
                       : steps<Momentum::kPlain>(call, gradient);
}

}  // namespace

double sgd(const SgdCall& call) {
  const GradientEntries& g = call.gradient;
  return g.f32 != nullptr ? steps_of(call, g.f32) : steps_of(call, g.bf16);
}

}  // namespace pion::PION_TARGET
