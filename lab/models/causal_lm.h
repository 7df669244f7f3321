// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lab/models/causal_lm_config.h"

namespace pion::lab {

struct DecoderStack;
struct TokenPack;

// A pre-norm transformer as Qwen2/2.5, Qwen3 (query and key normalized per head) and
// Llama have it; parameter names are Hugging Face's
// ("model.layers.0.self_attn.q_proj.weight").
//
//   x = x + o_proj(attention(rope(q), rope(k), v))       q, k, v of rms_norm(x)
//   x = x + down_proj(silu(gate_proj(y)) * up_proj(y))   y = rms_norm(x)
//   logits = lm_head(rms_norm(x)), or the embedding transposed if tied
//
// A tied head is no parameter of its own: it is the embedding.
class CausalLm : public torch::nn::Module {
 public:
  // Draws the weights, N(0, initializer_range^2), from torch's default generator; biases
  // are 0, gains 1. Without `draw` the weights are whatever memory holds: for loading.
  // Throws std::invalid_argument if sizes do not divide.
  explicit CausalLm(const CausalLmConfig& config, bool draw = true);
  ~CausalLm() override;

  // tokens: (batch, length) i64; rows are padded on the left, `starts` (batch) i64 is
  // each row's first real position. Positions count from there. Returns the hidden states
  // after the last norm, (batch, length, hidden_size), 0 on padding, which is not
  // computed. Throws std::invalid_argument: a token outside the vocabulary, a row longer
  // than the model's positions, a start outside [0, length).
  torch::Tensor hidden(const torch::Tensor& tokens, const torch::Tensor& starts);

  // The same for tokens without padding, see causal_lm_pack.h: (tokens, hidden_size).
  torch::Tensor hidden(const TokenPack& pack);

  // (..., hidden_size) -> (..., vocab_size) f32.
  torch::Tensor logits(const torch::Tensor& hidden) const;

  // The head's weight, (vocab_size, hidden_size): the embedding's if tied.
  torch::Tensor head_weight() const;

  const CausalLmConfig& config() const { return config_; }
  const DecoderStack& stack() const { return *stack_; }

  // Recomputes each layer in the backward pass instead of keeping what it needs;
  // gradients are the same to the bit.
  void set_gradient_checkpointing(bool on) { checkpointing_ = on; }

 private:
  CausalLmConfig config_;
  bool checkpointing_ = false;
  std::shared_ptr<DecoderStack> stack_;  // "model"
  torch::Tensor untied_head_;            // "lm_head.weight", undefined if tied
};

}  // namespace pion::lab
