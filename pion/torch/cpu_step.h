// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "pion/torch/parameter.h"

namespace pion {

// Scratch memory of one thread, kept between steps.
struct CpuWorkspace {
  MatrixStepWorkspace matrix;
  std::vector<float> weight;  // a bf16 weight, widened
};

// Steps CPU parameters in place on at::get_num_threads() threads, a matrix of a stack or
// a whole parameter at a time. Results do not depend on the number of threads.
void cpu_step(std::span<ParameterStep> steps, bool collect_spectrum,
              std::vector<CpuWorkspace>& workspaces);

}  // namespace pion
