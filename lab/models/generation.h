// SPDX-License-Identifier: Apache-2.0
// Sampling from a language model, batched, with a key-value cache.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <span>
#include <vector>

#include "lab/models/causal_lm.h"

namespace pion::lab {

struct SamplingOptions {
  std::int64_t max_new_tokens = 64;  // >= 1
  double temperature = 1.0;          // > 0, or 0: greedy, the smallest of equal ones
  std::int64_t top_k = 0;            // 0: all tokens; those equal to the k-th stay too
  double top_p = 1.0;                // in (0, 1]; of what top_k leaves
  std::vector<std::int64_t> stop_tokens;  // any of them ends an answer and is part of it
};

// B answers, padded on both sides: prompts end in column P - 1, answers begin in column
// P.
struct Generation {
  torch::Tensor
      tokens;  // (B, P + T) i64, padding has the pad token; T is the longest answer
  torch::Tensor starts;    // (B) i64, first real position of each row
  torch::Tensor mask;      // (B, T) bool, true on generated tokens, stop token included
  torch::Tensor logprobs;  // (B, T) f32 of the sampled tokens under the distribution that
                           // was sampled from (temperature, top-k, top-p); greedy: under
                           // that of temperature 1; 0 where mask is false
  torch::Tensor truncated;         // (B) bool: max_new_tokens without a stop token
  std::int64_t prompt_length = 0;  // P
};

// `samples` answers to each prompt; answers to prompt i are rows i * samples ... The
// prompt is computed once for all of them, and finished answers leave the batch. Greedy
// draws nothing from `generator`, sampling draws one number per call: token t of row r is
// chosen by the (r, t)-th number of a stream of its own that this number begins. So a row
// depends on other rows only through the rounding of sums, whose order may depend on the
// batch's size; with the same arguments the result is the same to the bit on one machine.
// The padding token is the config's, else a stop token, else 0. Throws
// std::invalid_argument: an empty prompt, a token outside the vocabulary, a prompt that
// with max_new_tokens exceeds the model's positions; std::runtime_error: logits that are
// not finite (with the layer where the first non-finite value appears).
Generation generate(const CausalLm& model,
                    const std::vector<std::vector<std::int64_t>>& prompts,
                    std::int64_t samples, const SamplingOptions& options,
                    at::Generator& generator);

// Answers that are given, one to each prompt, as generate() would return them, with
// logprobs 0 and truncated false: for fine-tuning on worked answers and for scoring.
// Throws std::invalid_argument: an empty prompt, unequal counts.
Generation given_answers(std::span<const std::vector<std::int64_t>> prompts,
                         std::span<const std::vector<std::int64_t>> answers,
                         std::int64_t pad_token = 0);

// Log-probabilities of the answers' tokens at `temperature` > 0, (rows, T) f32,
// differentiable; 0 where mask is false. `rows` (i64) selects rows of `generation` (a
// micro-batch). If `entropy` is not null it receives the entropy of each of these
// distributions, (rows, T) f32, detached. Adjacent rows with the same prompt share its
// computation; padding is not computed. Logits exist for a chunk of positions at a time.
torch::Tensor answer_logprobs(CausalLm& model, const Generation& generation,
                              const torch::Tensor& rows, double temperature,
                              torch::Tensor* entropy = nullptr);

}  // namespace pion::lab
