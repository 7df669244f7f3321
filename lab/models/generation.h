// SPDX-License-Identifier: Apache-2.0
// Sampling from a language model, batched, with a key-value cache.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <vector>

#include "lab/models/causal_lm.h"

namespace pion::lab {

struct SamplingOptions {
  std::int64_t max_new_tokens = 64;       // >= 1
  double temperature = 1.0;               // > 0, or 0: greedy
  std::int64_t top_k = 0;                 // 0: all tokens
  double top_p = 1.0;                     // in (0, 1]
  std::vector<std::int64_t> stop_tokens;  // any of them ends an answer and is part of it
};

// B answers, padded on both sides: prompts end in column P - 1, answers begin in column P.
struct Generation {
  torch::Tensor tokens;     // (B, P + T) i64, padding has the pad token
  torch::Tensor starts;     // (B) i64, first real position of each row
  torch::Tensor mask;       // (B, T) bool, true on generated tokens, stop token included
  torch::Tensor logprobs;   // (B, T) f32 of the sampled tokens under the distribution that was
                            // sampled from (temperature, top-k, top-p); 0 where mask is false
  torch::Tensor truncated;  // (B) bool: max_new_tokens without a stop token
  std::int64_t prompt_length = 0;  // P
};

// `samples` answers to each prompt; answers to prompt i are rows i * samples ... The prompt is
// computed once for all of them. Greedy draws nothing from `generator`. Throws
// std::invalid_argument: an empty prompt, a token outside the vocabulary, a prompt that with
// max_new_tokens exceeds the model's positions; std::runtime_error: logits that are not finite
// (with the layer where the first non-finite value appears).
Generation generate(CausalLm& model, const std::vector<std::vector<std::int64_t>>& prompts,
                    std::int64_t samples, const SamplingOptions& options,
                    at::Generator& generator);

// Log-probabilities of the answers' tokens at `temperature`, (B, T) f32, differentiable; 0
// where mask is false. `rows` selects rows of `generation` (a micro-batch). If `entropy` is not
// null it receives the entropy of each of these distributions, (B, T) f32, detached.
torch::Tensor answer_logprobs(CausalLm& model, const Generation& generation,
                              const torch::Tensor& rows, double temperature,
                              torch::Tensor* entropy = nullptr);

}  // namespace pion::lab
