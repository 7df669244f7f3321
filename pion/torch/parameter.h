// SPDX-License-Identifier: Apache-2.0
// What the optimizer keeps of a parameter, and one step's work on it.
#pragma once

#include <torch/optim/optimizer.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pion/optim/matrix_step.h"
#include "pion/torch/group_options.h"

namespace pion {

// Undefined tensors do not exist for the parameter's rule. Buffers are contiguous, of the
// parameter's shape and device, f64 for f64 parameters and f32 else.
struct ParameterState : torch::optim::OptimizerCloneableParamState<ParameterState> {
  torch::Tensor momentum_buffer;      // matrix rules, SGD with momentum
  torch::Tensor exp_avg, exp_avg_sq;  // AdamW
  torch::Tensor master;               // bf16 parameters under LowPrecision::kMasterCopy
  torch::Tensor step;                 // i64 scalar: steps taken, without skipped ones
  EmptyUpdateWatch watch;
  bool warned_of_skip = false;
  bool momentum_is_finite = false;  // a step has left it behind
  // steps begun, skipped ones too: the counter of stochastic rounding
  std::int64_t rounds = 0;
  // Rounds and steps when they were last compared (AtenWatch); -1: not yet.
  std::int64_t seen_rounds = -1, seen_steps = 0;
};

// One parameter in one step.
struct ParameterStep {
  std::string name;
  torch::Tensor parameter;
  torch::Tensor gradient;  // strided, of the parameter's shape
  ParameterState* state = nullptr;
  const GroupOptions* options = nullptr;
  const Rule* rule = nullptr;  // with this step's learning rate
  std::uint64_t seed = 0;      // of stochastic rounding, for this parameter and step
  UpdateStatistics result;     // written by the step
  std::vector<UpdateStatistics> matrices;  // written: of a stack, one by one
};

// A weight as `count` matrices of (rows x cols), one after the other in memory.
struct MatrixShape {
  std::int64_t count, rows, cols;
  bool stack = false;  // folded as a stack, be it of one matrix
};
MatrixShape matrix_shape(at::IntArrayRef sizes, Fold fold);

// Throws c10::Error that names the parameter if it cannot be stepped under these options:
// type, dimensions, heads, a cutoff that this shape cannot have.
void check_parameter(const torch::Tensor& parameter, const GroupOptions& options,
                     const std::string& name);
// Its gradient: dense, real, of its shape and device.
void check_gradient(const torch::Tensor& parameter, const std::string& name);
// Moves state to the parameter's device, where the parameter was moved since.
void move_state(ParameterState& state, const torch::Tensor& parameter);
// State of an earlier step: of the shape, type and device that the parameter has now.
void check_state(const ParameterState& state, const torch::Tensor& parameter,
                 const std::string& name);

// Throws c10::Error that begins with `where` if two of them share memory: a step would
// write it twice, in an order that depends on threads. `names` are theirs.
void check_apart(std::span<const torch::Tensor> parameters,
                 std::span<const std::string> names, std::string_view where);

// Makes the tensors that the rule needs and the state lacks, zeros at first.
void fill_state(ParameterState& state, const torch::Tensor& parameter,
                const GroupOptions& options);

// f64 for f64 parameters, f32 else.
at::ScalarType work_type(const torch::Tensor& parameter);

}  // namespace pion
