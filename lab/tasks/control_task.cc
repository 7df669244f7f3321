// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/control_task.h"

#include <ATen/CPUGeneratorImpl.h>

#include "lab/tasks/equal_rms.h"

namespace pion::lab {

RoutingOptions every_parameter_is_a_matrix(RoutingOptions options) {
  options.overrides.emplace_back("*", "matrix");
  return options;
}

at::Generator seeded_generator(std::int64_t seed) {
  return at::make_generator<at::CPUGeneratorImpl>(static_cast<std::uint64_t>(seed));
}

void restore_generator(at::Generator& generator, const TensorMap& tensors,
                       std::string_view task) {
  const auto found = tensors.find("generator");
  const torch::Tensor present = generator.get_state();
  if (found == tensors.end() || found->second.scalar_type() != at::kByte ||
      found->second.sizes() != present.sizes()) {
    throw std::invalid_argument(
        std::string(task) + ": the checkpoint must hold a tensor \"generator\" of " +
        std::to_string(present.numel()) + " bytes; it is from another task");
  }
  generator.set_state(found->second.contiguous());
}

void step_optimizer(Optimizer& optimizer, bool equal_rms) {
  if (equal_rms) {
    equal_rms_step(optimizer);
  } else {
    optimizer.step();
  }
}

}  // namespace pion::lab
