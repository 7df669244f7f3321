// SPDX-License-Identifier: Apache-2.0
// What the kernels of element-wise update rules are given. Plain data and declarations
// only: this header is read by sources built for different instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pion {

// A gradient as the kernels read it: one of the pointers is null.
struct GradientEntries {
  const float* f32 = nullptr;
  const std::uint16_t* bf16 = nullptr;  // bits of bfloat16
  bool negated = false;                 // stands for -g
  bool zero_nonfinite = false;          // NaN and Inf stand for 0
};

// n entries of:
//   m <- beta1 m + share1 g,  v <- beta2 v + share2 g^2
//   u = step_size m / (inverse_correction sqrt(v) + eps)
//   w <- decay w - u, if `moves`
struct AdamWCall {
  std::size_t n;
  float* weight;
  GradientEntries gradient;
  float *exp_avg, *exp_avg_sq;
  float beta1, share1, beta2, share2;
  float step_size, inverse_correction, eps, decay;
  bool moves;
};

// n entries of:
//   b <- first ? g : mu b + share g, unless `momentum` is null
//   u = lr (momentum is null ? g : nesterov ? g + mu b : b)
//   w <- decay w - u, if `moves`
struct SgdCall {
  std::size_t n;
  float* weight;
  GradientEntries gradient;
  float* momentum;
  float mu, share, lr, decay;
  bool first, nesterov, moves;
};

// gradient_squares: sum of g^2; NaN or Inf if and only if an entry is NaN or Inf.
// adamw, sgd: one step in place; return sum of u^2. All sums are in double.
#define PION_ELEMENTWISE(target)                                    \
  namespace target {                                                \
  double gradient_squares(const GradientEntries& g, std::size_t n); \
  double adamw(const AdamWCall& call);                              \
  double sgd(const SgdCall& call);                                  \
  }
PION_ELEMENTWISE(portable)
PION_ELEMENTWISE(avx2)
PION_ELEMENTWISE(avx512)
#undef PION_ELEMENTWISE

}  // namespace pion
