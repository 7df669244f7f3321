// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

namespace pion::lab {

struct PolicyOutput {
  torch::Tensor logits;  // (batch, actions)
  torch::Tensor value;   // (batch)
};

// A network with a policy head over discrete actions and a value head.
class ActorCritic : public torch::nn::Module {
 public:
  // observations: (batch, observation_size), float.
  virtual PolicyOutput forward(const torch::Tensor& observations) = 0;
};

}  // namespace pion::lab
