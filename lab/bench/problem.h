// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "lab/bench/workload.h"

namespace pion::bench {

// What every side of a measurement starts from, and clones.
struct Problem {
  Workload workload;
  Rule rule;
  std::vector<at::Tensor> weights, gradients;  // f32, one per parameter
};

// Weights are normals of deviation 0.02. Under kPowerLaw every block of a gradient has 32
// random directions at most, of sizes about 1, 1/2, 1/3, ..., and white noise of norm
// 0.3: the first ones pass Pion's filters, so nothing underflows. The same seed gives the
// same numbers.
Problem make_problem(const Workload& workload, const Rule& rule, Spectrum spectrum,
                     std::uint64_t seed);

// A parameter as (heads, rows, cols), without a copy, and back to (all rows, all cols).
at::Tensor cut_in_blocks(const at::Tensor& whole, const ParameterShape& shape);
at::Tensor join_blocks(const at::Tensor& blocks, const ParameterShape& shape);

}  // namespace pion::bench
