// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "pion/optim/matrix_rule.h"
#include "pion/optim/update_statistics.h"

namespace pion {

// AdamW: every entry's step is divided by the root mean square of its gradients.
// Source: arXiv:1711.05101, in the form of torch.optim.AdamW.
//
//   w <- (1 - lr weight_decay) w
//   m <- beta1 m + (1 - beta1) g          exp_avg
//   v <- beta2 v + (1 - beta2) g^2        exp_avg_sq
//   w <- w - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
struct AdamWRule {
  double lr = 1e-3;                   // about the size of an entry's step; >= 0
  double beta1 = 0.9, beta2 = 0.999;  // in [0, 1)
  double eps = 1e-8;          // > 0; added after the square root and bias correction
  double weight_decay = 0.0;  // decoupled, multiplied by lr; >= 0
  NonFinite nonfinite = NonFinite::kSkip;
};

// One step on n numbers, in place.
//
//   weight                read, written; float or double; unchanged at lr 0
//   gradient              read only; float, double or bfloat16
//   exp_avg, exp_avg_sq   read, written; all zeros before the first step
//   step                  t, counts from 1; a skipped step does not count
//
// Throws std::invalid_argument if sizes differ, step < 1, an option is out of range, or
// the gradient is non-finite under kRaise. Nothing is written when it throws or skips.
template <class T, class G = T>
UpdateStatistics adamw_step(std::span<T> weight, std::span<const G> gradient,
                            std::span<T> exp_avg, std::span<T> exp_avg_sq,
                            std::int64_t step, const AdamWRule& rule);

}  // namespace pion
