// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pion/torch/pion.h"

namespace pion::lab {

// One step of `optimizer` whose size does not depend on the rule, so that rules can be
// compared on one grid of learning rates. Per parameter, with N entries and lr_t = lr *
// lr_factor():
//
//   D  the rule's direction: what its own step takes off a weight, divided by lr_t
//   W <- W - lr_t sqrt(N) D / (||D||_F + 1e-4)
//
// that is, every update has root mean square lr_t. The floor 1e-4 keeps an empty update
// empty. The rule steps a weight that is set to zero meanwhile, so that D is exact (a
// difference of weights would lose the digits that W has in front of it); weight decay
// must therefore be 0. The rule's own scale cancels, up to the floor; momentum and second
// moments are as usual. Statistics of the optimizer show the rule's own update, before it
// is rescaled.
//
// Throws std::invalid_argument if a group has weight decay; nothing is changed then.
void equal_rms_step(Optimizer& optimizer);

}  // namespace pion::lab
