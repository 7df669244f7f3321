// SPDX-License-Identifier: Apache-2.0
// What the threads of step_all do: each function works on one piece of one parameter.
#pragma once

#include "pion/optim/step_all.h"

namespace pion {

// Looks at one chunk of the gradient, of all matrices together.
RunScan scan_chunk(const ParameterUpdate& update, std::size_t entries, std::size_t chunk,
                   bool zero_nonfinite);

// Throws what the rule throws under NonFinite::kRaise.
void raise_nonfinite(const ParameterUpdate& update);

// Steps one chunk under an element-wise rule; returns the sum of squares of the update.
double step_chunk(const ParameterUpdate& update, const ElementwiseScalars& scalars,
                  std::size_t entries, std::size_t chunk, bool zero_nonfinite,
                  StepWorkspaces::Thread& thread);

// Scans and steps a parameter of one chunk under an element-wise rule. Not for kRaise.
UpdateStatistics step_small(const ParameterUpdate& update,
                            const ElementwiseScalars& scalars, std::size_t entries,
                            StepWorkspaces::Thread& thread);

// Steps one matrix of a parameter under a matrix rule.
UpdateStatistics step_matrix(const ParameterUpdate& update, std::size_t matrix,
                             StepWorkspaces::Thread& thread);

}  // namespace pion
