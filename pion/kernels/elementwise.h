// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pion/kernels/cpu_target.h"
#include "pion/kernels/elementwise_call.h"

namespace pion {

// The element-wise steps of f32 weights, one pass over memory each; elementwise_call.h
// has the formulas. Arrays need no alignment and must not overlap. Results depend on the
// CPU target and, in the sums, on where a long array is cut.
double gradient_squares(const GradientEntries& gradient, std::size_t n,
                        CpuTarget target = cpu_target());
double adamw(const AdamWCall& call, CpuTarget target = cpu_target());
double sgd(const SgdCall& call, CpuTarget target = cpu_target());

}  // namespace pion
