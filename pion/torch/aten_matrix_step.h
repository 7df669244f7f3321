// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "pion/torch/aten_statistics.h"
#include "pion/torch/aten_watch.h"

namespace pion {

// Steps the matrices of a piece: momentum, map and weight. Adds rows to `table` unless it
// is null, else to `passed` if the piece is looked at. A stack that does not fit is
// stepped by parts.
void step_matrices(const Piece& piece, StatisticsTable* table,
                   std::vector<PassedRows>& passed);

}  // namespace pion
