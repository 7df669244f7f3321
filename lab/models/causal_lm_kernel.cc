// SPDX-License-Identifier: Apache-2.0
// Built once per CPU target with that target's flags; see generation_kernel.cc.

#include <cstddef>

#include "lab/models/causal_lm_kernel_call.h"
#include "lab/models/generation_lanes.h"

namespace pion::lab::PION_TARGET {
namespace {

// Lanes of x[i, i + n), 0 behind the end.
inline Lanes load_upto(const float* x, size_t n) {
  return n >= kLanes ? load(x) : load_part(x, n, 0);
}
inline void store_upto(float* x, Lanes v, size_t n) {
  n >= kLanes ? store(x, v) : store_part(x, v, n);
}

inline Lanes sigmoid(Lanes x) {
  const Lanes e = exponential(x < 0 ? x : -x);  // at most 1, so nothing overflows
  return (x < 0 ? e : all(1)) / (1 + e);
}

void norm(const float* x, const float* gain, float eps, size_t rows, size_t width,
          float* out, float* scales) {
  for (size_t row = 0; row < rows; ++row, x += width, out += width) {
    Lanes squares = {};
    for (size_t i = 0; i < width; i += kLanes) {
      const Lanes v = load_upto(x + i, width - i);
      squares += v * v;
    }
    const float scale =
        1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + eps);
    scales[row] = scale;
    for (size_t i = 0; i < width; i += kLanes) {
      const size_t n = width - i;
      store_upto(out + i, load_upto(gain + i, n) * (load_upto(x + i, n) * scale), n);
    }
  }
}

void norm_gradient(const float* x, const float* gain, const float* scales,
                   const float* gradient, size_t rows, size_t width, float* to_x,
                   float* to_gain) {
  for (size_t row = 0; row < rows; ++row, x += width, gradient += width, to_x += width) {
    const float scale = scales[row];
    Lanes products = {};
    for (size_t i = 0; i < width; i += kLanes) {
      const size_t n = width - i;
      const Lanes g = load_upto(gradient + i, n), v = load_upto(x + i, n);
      products += g * load_upto(gain + i, n) * v;
      store_upto(to_gain + i, load_upto(to_gain + i, n) + g * (v * scale), n);
    }
    const float along = sum(products) * scale * scale * scale / static_cast<float>(width);
    for (size_t i = 0; i < width; i += kLanes) {
      const size_t n = width - i;
      const Lanes g = load_upto(gradient + i, n) * load_upto(gain + i, n);
      store_upto(to_x + i, g * scale - load_upto(x + i, n) * along, n);
    }
  }
}

void gate(const float* gate, const float* up, size_t n, float* out) {
  for (size_t i = 0; i < n; i += kLanes) {
    const Lanes g = load_upto(gate + i, n - i);
    store_upto(out + i, g * sigmoid(g) * load_upto(up + i, n - i), n - i);
  }
}

void gate_gradient(const float* gate, const float* up, const float* gradient, size_t n,
                   float* to_gate, float* to_up) {
  for (size_t i = 0; i < n; i += kLanes) {
    const size_t left = n - i;
    const Lanes g = load_upto(gate + i, left), d = load_upto(gradient + i, left);
    const Lanes s = sigmoid(g);
    const Lanes du = load_upto(up + i, left);
    store_upto(to_up + i, d * (g * s), left);
    store_upto(to_gate + i, d * du * s * (1 + g * (1 - s)), left);
  }
}

void rotate(const float* x, const float* cosine, const float* sine, float direction,
            size_t rows, size_t heads, size_t dim, float* out) {
  const size_t half = dim / 2;
  for (size_t row = 0; row < rows; ++row, cosine += dim, sine += dim)
    for (size_t head = 0; head < heads; ++head, x += dim, out += dim)
      for (size_t i = 0; i < half; i += kLanes) {
        const size_t n = half - i;
        const Lanes a = load_upto(x + i, n), b = load_upto(x + half + i, n);
        const Lanes c = load_upto(cosine + i, n), s = load_upto(sine + i, n) * direction;
        store_upto(out + i, a * c - b * s, n);
        store_upto(out + half + i, b * c + a * s, n);
      }
}

}  // namespace

extern const FusedKernels kFusedKernels;
const FusedKernels kFusedKernels = {norm, norm_gradient, gate, gate_gradient, rotate};

}  // namespace pion::lab::PION_TARGET
