// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "pion/optim/step_all.h"

namespace pion {

// Throws std::invalid_argument, naming the update by its index, if one is incomplete or
// out of range.
void check_updates(std::span<const ParameterUpdate> updates);

// The statistics of a stack, of those of its matrices.
UpdateStatistics combine(std::span<const UpdateStatistics> matrices);

}  // namespace pion
