// SPDX-License-Identifier: Apache-2.0
// Built once per CPU target with that target's flags; see gemm_kernel.cc for what
// follows.

#include <cstddef>

#include "pion/kernels/gemm_call.h"
#include "pion/kernels/lanes.h"

namespace pion::PION_TARGET {

double multiply_add_peak(std::size_t repetitions, float factor, float* last) {
  constexpr std::size_t kChains = 12;  // 8 hide the latency: 4 cycles, 2 a cycle
  F32 sums[kChains];
  for (std::size_t i = 0; i < kChains; ++i) sums[i] = F32{} + static_cast<float>(i);
  const F32 step = F32{} + factor;
  for (std::size_t repetition = 0; repetition < repetitions; ++repetition) {
#pragma GCC unroll 12
    for (std::size_t i = 0; i < kChains; ++i) sums[i] = sums[i] * step + step;
  }
  F32 total = {};
  for (std::size_t i = 0; i < kChains; ++i) total += sums[i];
  *last = total[0];
  return 2.0 * PION_LANES * kChains * static_cast<double>(repetitions);
}

}  // namespace pion::PION_TARGET
