// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pion/optim/routing.h"

namespace pion {

// Applies `decay_vectors` and `lr_by_role` to the rules of placed parameters. Throws
// std::invalid_argument for a role that does not exist, that no parameter has, or that is
// named twice, and for a rate that is no number >= 0.
void set_keys_by_role(Routing& routing, const RoutingOptions& options);

}  // namespace pion
