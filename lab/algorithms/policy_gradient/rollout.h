// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>

namespace pion::lab {

// What a policy-gradient update is computed from: B responses padded to T tokens, all on
// one device, detached. A field that a transform needs and that is undefined is an error,
// never a default. Log-probabilities are of the sampled tokens at the sampling
// temperature; what they hold where `mask` is false is not read. f32, or f64 all alike.
struct Rollout {
  torch::Tensor logp_old;      // (B, T), when rolled out, by the training code
  torch::Tensor logp_rollout;  // (B, T), by the generating code; may be undefined
  torch::Tensor logp_ref;      // (B, T), of a frozen reference; may be undefined
  torch::Tensor mask;          // (B, T) bool, true on generated tokens
  torch::Tensor reward;        // (B) f32 or f64
  torch::Tensor correct;    // (B) bool: filters look at this, never at the shaped reward
  torch::Tensor group;      // (B) i64, same for responses to one prompt
  torch::Tensor truncated;  // (B) bool
};

// name -> value, for the metrics log.
using Metrics = std::map<std::string, double>;

}  // namespace pion::lab
