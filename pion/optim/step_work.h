// SPDX-License-Identifier: Apache-2.0
// What the threads of step_all do: each function works on one piece of one parameter.
#pragma once

#include "pion/optim/step_all.h"

namespace pion {

// A chunk of a bf16 weight is stepped in pieces of so many entries, which stay in L1
// between widening and rounding.
inline constexpr std::size_t kWidePiece = 2048;

// Looks at one chunk of the gradient. Chunks lie within pieces of so many entries each
// and are counted through all of them.
RunScan scan_chunk(const ParameterUpdate& update, std::size_t piece, std::size_t chunk,
                   bool zero_nonfinite);

// Whether every entry of a chunk of a matrix rule's momentum is finite.
bool momentum_chunk_is_finite(const ParameterUpdate& update, std::size_t entries,
                              std::size_t chunk);

// Whether every entry of the gradient of one matrix is zero.
bool gradient_is_zero(const ParameterUpdate& update, std::size_t matrix,
                      bool zero_nonfinite);

// Throws what the rule throws under NonFinite::kRaise.
void raise_nonfinite(const ParameterUpdate& update);

// Steps one chunk under an element-wise rule; returns the sum of squares of the update.
// `thread` has room for kWidePiece numbers in `weight`.
double step_chunk(const ParameterUpdate& update, const ElementwiseScalars& scalars,
                  std::size_t entries, std::size_t chunk, bool zero_nonfinite,
                  StepWorkspaces::Thread& thread);

// Scans and steps a whole parameter under an element-wise rule. Under kRaise its gradient
// must be known to be finite.
UpdateStatistics step_whole(const ParameterUpdate& update,
                            const ElementwiseScalars& scalars, std::size_t entries,
                            StepWorkspaces::Thread& thread);

// Steps one matrix of a parameter under a matrix rule.
UpdateStatistics step_matrix(const ParameterUpdate& update, std::size_t matrix,
                             StepWorkspaces::Thread& thread);

}  // namespace pion
