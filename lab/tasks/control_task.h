// SPDX-License-Identifier: Apache-2.0
// What the control tasks share: one kind of parameter, one random generator, two ways to
// step.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string_view>

#include "lab/run/task.h"

namespace pion::lab {

// Throws std::invalid_argument "<claim>, got <value>" unless `holds`.
template <class T>
void require(bool holds, std::string_view claim, const T& value) {
  if (holds) return;
  std::ostringstream message;
  message << claim << ", got " << value;
  throw std::invalid_argument(message.str());
}

// `options` with one more decision: every parameter takes the matrix rule. These models
// have nothing but hidden matrices, whatever their names look like.
RoutingOptions every_parameter_is_a_matrix(RoutingOptions options);

// A generator of its own, so that nothing outside a task changes what it draws. It draws
// what torch.Generator().manual_seed(seed) draws in Python.
at::Generator seeded_generator(std::int64_t seed);

// Takes the state of tensors["generator"]. Throws std::invalid_argument if it is missing
// or is no generator's state.
void restore_generator(at::Generator& generator, const TensorMap& tensors,
                       std::string_view task);

// equal_rms ? equal_rms_step : the optimizer's own step.
void step_optimizer(Optimizer& optimizer, bool equal_rms);

}  // namespace pion::lab
