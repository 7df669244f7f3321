// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pion/torch/aten_statistics.h"

namespace pion {

// Steps the parameters of a piece by AdamW or SGD. Adds rows to `table` unless it is
// null.
void step_elementwise(const Piece& piece, StatisticsTable* table);

}  // namespace pion
