// SPDX-License-Identifier: Apache-2.0
// Built once per CPU target with that target's flags; see gemm_kernel.cc for what
// follows.

#include <cstddef>
#include <cstdint>

#include "pion/kernels/elementwise_lanes.h"

namespace pion::PION_TARGET {

namespace {

template <class G>
double squares_of(const G* g, const GradientLanes& lanes, std::size_t n) {
  Squares first, second;  // with two vectors each: four chains hide the add latency
  std::size_t i = 0;
  for (; i + 2 * PION_LANES <= n; i += 2 * PION_LANES) {
    first.add(lanes(g + i));
    second.add(lanes(g + i + PION_LANES));
  }
  for (; i < n; i += PION_LANES) {
    const std::size_t left = n - i;
    const Rest<const G> rest(g + i, left < PION_LANES ? left : PION_LANES);
    first.add(lanes(rest.entries));
  }
  return first.total() + second.total();
}

}  // namespace

// The square of no float overflows a double, so a sum that is not finite has a NaN or an
// Inf in it: the check costs nothing.
double gradient_squares(const GradientEntries& g, std::size_t n) {
  const GradientLanes lanes(g);
  return g.f32 != nullptr ? squares_of(g.f32, lanes, n) : squares_of(g.bf16, lanes, n);
}

}  // namespace pion::PION_TARGET
