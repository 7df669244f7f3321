// SPDX-License-Identifier: Apache-2.0
// A parameter's state as named tensors: what checkpoints hold.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "pion/torch/parameter.h"

namespace pion {

// "momentum_buffer", "exp_avg", "exp_avg_sq", "master", "step" as they exist, and
// "counters": i64 {empty updates in a row, warned of them, warned of a skipped step,
// rounds}.
std::map<std::string, torch::Tensor> state_fields(const ParameterState& state);

// The state that such fields give to a parameter, copied to its device. Throws c10::Error
// that names the parameter if a field is missing, foreign, or of another shape or type.
std::unique_ptr<ParameterState> state_from_fields(
    std::map<std::string, torch::Tensor> fields, const torch::Tensor& parameter,
    const GroupOptions& options, const std::string& name);

}  // namespace pion
