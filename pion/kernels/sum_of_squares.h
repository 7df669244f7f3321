// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "pion/kernels/cpu_target.h"

namespace pion {

// Sum of x[i]^2, read only. Floats are summed in float by blocks of 4096 and their totals
// in double: relative error below 260 * 2^-24 for any input and 3e-9 typically. Doubles
// in double. The result depends on the CPU target. Squares that overflow T give inf;
// scale beforehand.
double sum_of_squares(std::span<const float> x, CpuTarget target = cpu_target());
double sum_of_squares(std::span<const double> x, CpuTarget target = cpu_target());

}  // namespace pion
