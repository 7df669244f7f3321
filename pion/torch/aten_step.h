// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "pion/torch/aten_watch.h"
#include "pion/torch/parameter.h"

namespace pion {

// Steps parameters on any device by ATen operations: the formulas of pion/optim in the
// parameter's work type, parameters of one group, shape and type and their heads as
// batches. Each piece is written before the next begins; docs/cpp.md says what that
// costs. Nothing waits for the device, unless statistics are collected: then once, at the
// end. Without them `result` stays empty. Returns what the maps passed of parameters that
// are looked at in this step, without statistics.
std::vector<PassedRows> aten_step(std::span<ParameterStep> steps, bool collect);

}  // namespace pion
