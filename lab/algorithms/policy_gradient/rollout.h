// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>

namespace pion::lab {

// What a policy-gradient update is computed from: B responses padded to T tokens. A field that
// a transform needs and that is undefined is an error, never a default.
struct Rollout {
  torch::Tensor logp_old;      // (B, T) f32, when rolled out, by the training code
  torch::Tensor logp_rollout;  // (B, T) f32, by the generating code; may be undefined
  torch::Tensor logp_ref;      // (B, T) f32, of a frozen reference; may be undefined
  torch::Tensor mask;          // (B, T) bool, true on generated tokens
  torch::Tensor reward;        // (B) f32
  torch::Tensor correct;       // (B) bool: filters look at this, never at the shaped reward
  torch::Tensor group;         // (B) i64, same for responses to one prompt
  torch::Tensor truncated;     // (B) bool
};

// name -> value, for the metrics log.
using Metrics = std::map<std::string, double>;

}  // namespace pion::lab
