// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "pion/torch/parameter.h"

namespace pion {

// Steps parameters on any device by ATen operations: the formulas of pion/optim in the
// parameter's work type, heads and stacks as batched products. Nothing waits for the
// device, unless statistics are collected: then once, at the end. Without them `result`
// stays empty.
void aten_step(std::span<ParameterStep> steps, bool collect);

}  // namespace pion
