// SPDX-License-Identifier: Apache-2.0
// The model's forward pass for generation: new tokens against cached keys and values.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

#include "lab/models/causal_lm.h"
#include "lab/models/generation_kernels.h"
#include "lab/models/kv_cache.h"

namespace pion::lab {

// Prompts are cached once each, answers beside them: an answer attends to its prompt's
// cache, then to its own. Weights are packed once, at construction: later changes of the
// model are not seen.
class LmDecoder {
 public:
  // `samples` answers to each prompt, of at most `answer_capacity` tokens; all of them
  // checked by the caller.
  LmDecoder(const CausalLm& model, const std::vector<std::vector<std::int64_t>>& prompts,
            std::int64_t samples, std::int64_t answer_capacity);

  // Computes all prompts; (prompts, vocab) f32 logits after each one's last token.
  torch::Tensor prefill();

  // Appends tokens[i] to answer rows[i], all different, each one's token number `step`;
  // (rows, vocab) f32 logits after them.
  torch::Tensor step(const std::vector<std::int64_t>& rows,
                     const std::vector<std::int64_t>& tokens, std::int64_t step);

  // After logits that are not finite: where the values of the latest call ceased to be.
  std::string find_nonfinite();

 private:
  struct LayerWeights {
    torch::Tensor qkv, qkv_bias, output, output_bias;  // as the model's type
    torch::Tensor gate_up, gate_up_bias, down, down_bias;
    torch::Tensor input_gain, middle_gain, q_gain, k_gain;  // f32
  };
  struct NewToken {
    std::int64_t token, prompt;
    std::int64_t answer;  // -1: of the prompt itself
    std::int64_t slot;    // in the prompt, or in the answer
  };

  void pack_weights(const CausalLm& model);
  torch::Tensor run(const std::vector<NewToken>& tokens, std::string* nonfinite);
  torch::Tensor multiply(const torch::Tensor& x, const torch::Tensor& weight,
                         const torch::Tensor& bias) const;
  void place_all(const std::vector<NewToken>& tokens, std::int64_t layer, float* qkv);
  void attend_all(const std::vector<NewToken>& tokens, std::int64_t layer,
                  const float* qkv, float* out);
  void norm_rows(torch::Tensor& x, const torch::Tensor& delta, const torch::Tensor& gain,
                 torch::Tensor& out) const;
  void gate_rows(const torch::Tensor& gate_up, torch::Tensor& out) const;

  CausalLmConfig config_;
  bool bf16_;
  DecodeShape shape_;
  const DecodeKernels& kernels_;
  std::int64_t samples_;
  std::vector<std::vector<std::int64_t>> prompts_;
  torch::Tensor embedding_, head_, final_gain_;
  std::vector<LayerWeights> layers_;
  torch::Tensor cosine_, sine_;  // (positions, head_dim / 2) f32
  KvCache prompt_cache_, answer_cache_;
  std::vector<NewToken> latest_;
};

}  // namespace pion::lab
