// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "pion/optim/matrix_rule.h"
#include "pion/optim/update_statistics.h"

namespace pion {

// SGD with momentum in sum form, as torch.optim.SGD, but with decoupled weight decay.
//
//   w <- (1 - lr weight_decay) w
//   b <- t = 1 ? g : mu b + (1 - dampening) g
//   w <- w - lr (mu = 0 ? g : nesterov ? g + mu b : b)
struct SgdRule {
  double lr = 1e-2;           // >= 0
  double momentum = 0.9;      // mu, in [0, 1); at 0 no state is read or written
  double dampening = 0.0;     // in [0, 1]; 1 - momentum gives the averaging form
  bool nesterov = false;      // needs momentum > 0 and dampening = 0
  double weight_decay = 0.0;  // multiplied by lr; >= 0
  NonFinite nonfinite = NonFinite::kSkip;
};

// One step on n numbers, in place.
//
//   weight           read, written; float or double; unchanged at lr 0
//   gradient         read only; float, double or bfloat16
//   momentum_buffer  read (from the second step on), written; may be empty if momentum
//                    is 0
//   step             t, counts from 1; a skipped step does not count
//
// Throws std::invalid_argument if sizes differ, step < 1, an option is out of range, or
// the gradient is non-finite under kRaise. Nothing is written when it throws or skips.
template <class T, class G = T>
UpdateStatistics sgd_step(std::span<T> weight, std::span<const G> gradient,
                          std::span<T> momentum_buffer, std::int64_t step,
                          const SgdRule& rule);

}  // namespace pion
