// SPDX-License-Identifier: Apache-2.0
// Built once per CPU target with that target's flags; see probe_kernel.h.
#include <cstddef>

#include "pion/kernels/lanes.h"

namespace pion::PION_TARGET {
namespace {

constexpr std::size_t kLanes = PION_LANES;

F32 broadcast(float value) {
  F32 v;
  for (std::size_t lane = 0; lane < kLanes; ++lane) v[lane] = value;
  return v;
}

float sum(F32 v) {
  float total = 0;
  for (std::size_t lane = 0; lane < kLanes; ++lane) total += v[lane];
  return total;
}

}  // namespace

// 12 chains: 4 cycles of latency on 2 units need 8; 12 and two constants fit 16
// registers.
float multiply_add_rounds(std::size_t rounds) {
  const F32 b = broadcast(0.999f), c = broadcast(0.001f);  // stays near 1
  F32 x[12];
  for (int i = 0; i < 12; ++i) x[i] = broadcast(1.0f / static_cast<float>(i + 1));
  for (; rounds > 0; --rounds) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) x[i] = x[i] * b + c;
  }
  F32 total = {};
  for (int i = 0; i < 12; ++i) total += x[i];
  return sum(total);
}

double multiply_add_flops() { return 12 * 2 * static_cast<double>(kLanes); }

float read_stream(const float* x, std::size_t n) {
  F32 s0 = {}, s1 = {}, s2 = {}, s3 = {}, s4 = {}, s5 = {}, s6 = {}, s7 = {};
  for (std::size_t i = 0; i < n; i += 8 * kLanes) {
    s0 += load(x + i), s1 += load(x + i + kLanes);
    s2 += load(x + i + 2 * kLanes), s3 += load(x + i + 3 * kLanes);
    s4 += load(x + i + 4 * kLanes), s5 += load(x + i + 5 * kLanes);
    s6 += load(x + i + 6 * kLanes), s7 += load(x + i + 7 * kLanes);
  }
  return sum(s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7);
}

void update_stream(float* x, std::size_t n) {
  const F32 half = broadcast(0.5f), one = broadcast(1.0f);
  for (std::size_t i = 0; i < n; i += 4 * kLanes) {
    const F32 a = load(x + i), b = load(x + i + kLanes), c = load(x + i + 2 * kLanes),
              d = load(x + i + 3 * kLanes);
    store(x + i, a * half + one), store(x + i + kLanes, b * half + one);
    store(x + i + 2 * kLanes, c * half + one), store(x + i + 3 * kLanes, d * half + one);
  }
}

}  // namespace pion::PION_TARGET
