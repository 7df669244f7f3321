// SPDX-License-Identifier: Apache-2.0
// A step of Pion or Muon on an f32 matrix, block by block: each reads its gradient and
// momentum once, and its weight once.
#pragma once

#include <span>

#include "pion/executor.h"
#include "pion/optim/matrix_step.h"

namespace pion {

// Whether a step under the rule goes by blocks for f32 weights.
bool steps_by_blocks(const Rule& rule);

// One matrix whose arguments are checked and whose gradient is known to be finite.
// Exactly one of the gradients has data.
struct BlockwiseMatrix {
  MatrixView weight, momentum;
  ConstMatrixView gradient;
  MatrixViewOf<const bfloat16> narrow_gradient;
  bool maximize = false;
  const Rule* rule = nullptr;
  bool transposed = false;  // HeadLayout::transposed
  double magnitude = 1;     // usual size of the gradient's entries; a guess will do
};

// Steps one block: its momentum, then its weight.
BlockResult step_block(const BlockwiseMatrix& matrix, const Block& block,
                       MatrixStepWorkspace& workspace, Executor& executor);

// What the step of a matrix did, of all its blocks in order. `norm` is the gradient's.
UpdateStatistics merge_blocks(std::span<const Block> blocks,
                              std::span<const BlockResult> results, double norm,
                              bool collect_spectrum);

}  // namespace pion
