// SPDX-License-Identifier: Apache-2.0
// Passes over activations in training, each one loop where LibTorch has several. f32,
// dense. The one source, causal_lm_kernel.cc, is built once per CPU target.
#pragma once

#include <cstddef>

namespace pion::lab {

struct FusedKernels {
  // out = x s gain, s = 1 / sqrt(mean(x^2) + eps) of each row, which `scales` receives.
  void (*norm)(const float* x, const float* gain, float eps, std::size_t rows,
               std::size_t width, float* out, float* scales);
  // Its gradients: dx = s (g gain) - x s^3 / width sum(g gain x), written;
  // dgain += sum over rows of g x s.
  void (*norm_gradient)(const float* x, const float* gain, const float* scales,
                        const float* gradient, std::size_t rows, std::size_t width,
                        float* to_x, float* to_gain);
  // out = silu(gate) up.
  void (*gate)(const float* gate, const float* up, std::size_t n, float* out);
  // Its gradients, written.
  void (*gate_gradient)(const float* gate, const float* up, const float* gradient,
                        std::size_t n, float* to_gate, float* to_up);
  // out = x rotated by the angle of its row, or by `direction` -1 back. x: (rows x heads
  // x dim); cosine, sine: (rows x dim), of which the first halves are read.
  void (*rotate)(const float* x, const float* cosine, const float* sine, float direction,
                 std::size_t rows, std::size_t heads, std::size_t dim, float* out);
};

}  // namespace pion::lab
