// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "pion/optim/step_all.h"
#include "pion/torch/parameter.h"

namespace pion {

// Steps CPU parameters in place by step_all on at::get_num_threads() threads. Results do
// not depend on the number of threads.
void cpu_step(std::span<ParameterStep> steps, bool collect_spectrum,
              StepWorkspaces& workspaces);

}  // namespace pion
