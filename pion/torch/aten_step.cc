// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_step.h"

#include "pion/torch/aten_elementwise_step.h"
#include "pion/torch/aten_matrix_step.h"

namespace pion {

std::vector<PassedRows> aten_step(std::span<ParameterStep> steps, bool collect) {
  StatisticsTable table;
  std::vector<PassedRows> passed;
  // a piece is written before the next begins
  for (const Piece& piece : pieces(steps)) {
    if (is_matrix_rule(*piece.front().rule)) {
      step_matrices(piece, collect ? &table : nullptr, passed);
    } else {
      step_elementwise(piece, collect ? &table : nullptr);
    }
  }
  table.fill_results();
  return passed;
}

}  // namespace pion
