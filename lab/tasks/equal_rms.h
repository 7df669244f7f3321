// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "pion/torch/pion.h"

namespace pion::lab {

// One step of `optimizer` whose size does not depend on the rule, so that rules can be
// compared on one grid of learning rates. Per parameter of `chosen`, with N entries and
// lr_t = lr * lr_factor():
//
//   D  the rule's direction: what its own step takes off a weight, divided by lr_t
//   W <- W - lr_t sqrt(N) D / (||D||_F + 1e-4)
//
// that is, every update has root mean square lr_t. The floor 1e-4 keeps an empty update
// empty. The rule steps a weight that is set to zero meanwhile, so that D is exact (a
// difference of weights would lose the digits that W has in front of it); weight decay
// must therefore be 0. The rule's own scale cancels, up to the floor; momentum and second
// moments are as usual. The other parameters take the optimizer's own step. Its
// statistics show the rule's own update, before it is rescaled.
//
// Returns the root mean square of each chosen parameter's update. Throws
// std::invalid_argument if a group of theirs has weight decay or one is neither f32 nor
// f64 (a master copy would not see the zero); nothing is changed then.
std::vector<double> equal_rms_step(Optimizer& optimizer,
                                   const std::vector<torch::Tensor>& chosen);
// The same for all parameters.
void equal_rms_step(Optimizer& optimizer);

}  // namespace pion::lab
