// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pion/optim/matrix_step.h"

namespace pion {

// The map of a rule and block shape, made once and then kept in the workspace.
const MatrixStepWorkspace::PreparedMap& prepared_map(MatrixStepWorkspace& workspace,
                                                     const Rule& rule,
                                                     const Block& block);

}  // namespace pion
