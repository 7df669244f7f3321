// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "pion/optim/step_all.h"

namespace pion {

// Throws std::invalid_argument, naming the update by its index, if one is incomplete or
// out of range.
void check_updates(std::span<const ParameterUpdate> updates);

// Throws std::invalid_argument if arrays overlap that different updates write. `known`
// are the arrays of the last call, which need no second look; `sorted` is scratch memory.
void check_apart(std::span<const ParameterUpdate> updates,
                 std::vector<WrittenArray>& known, std::vector<WrittenArray>& sorted);

// "updates[index]", and the name if there is one.
std::string label(const ParameterUpdate& update, std::size_t index);

// The statistics of a stack, of those of its matrices.
UpdateStatistics combine(std::span<const UpdateStatistics> matrices);

}  // namespace pion
