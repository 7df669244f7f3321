// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <cstdint>

#include "lab/models/actor_critic.h"

namespace pion::lab {

// A pre-norm transformer that reads a board as a set of tokens:
//
//   x_t = patch_projection(patch_t) + position_t   a patch is patch x patch cells
//   x_r = position_r                               one more token, which reads out
//   x   = x + o_proj(attention(norm(x)))           in every layer
//   x   = x + down_proj(gelu(up_proj(norm(x))))
//   logits = policy_head(norm(x_r)), value = value_head(norm(x_r))
//
// In the last layer only the read-out token is computed beyond keys and values: nothing
// reads what the other tokens would become. This changes no result.
//
// Initialization as in CleanRL's PPO (github.com/vwxyzjn/cleanrl): orthogonal, gain
// sqrt(2) for hidden layers, 0.01 for the policy head, 1 for the value head, biases 0.
// Ours: gain 1 for q, k, v, gain 1 / sqrt(2 num_layers) for what is added to the residual
// stream, positions N(0, 0.1^2).
struct TransformerPolicyOptions {
  std::int64_t height = 6, width = 6;  // cells
  std::int64_t planes = 9;             // numbers per cell
  std::int64_t actions = 4;
  std::int64_t patch = 1;  // side of a patch in cells; must divide height and width
  std::int64_t d_model = 64;
  std::int64_t num_layers = 2;
  std::int64_t num_heads = 4;  // must divide d_model
  double mlp_ratio = 2.0;      // width of the hidden layer over d_model
};

struct SelfAttention : torch::nn::Module {
  SelfAttention(std::int64_t d_model, std::int64_t num_heads, double output_gain);

  // x: (batch, tokens, d_model). The queries are the first `queries` tokens; returns
  // (batch, queries, d_model).
  torch::Tensor forward(const torch::Tensor& x, std::int64_t queries);

  std::int64_t num_heads;
  torch::nn::Linear q_proj = nullptr, k_proj = nullptr, v_proj = nullptr,
                    o_proj = nullptr;
};

struct TransformerLayer : torch::nn::Module {
  explicit TransformerLayer(const TransformerPolicyOptions& options);
  torch::Tensor forward(const torch::Tensor& x,
                        std::int64_t queries);  // as SelfAttention

  torch::nn::LayerNorm attention_norm = nullptr, mlp_norm = nullptr;
  std::shared_ptr<SelfAttention> attention;
  torch::nn::Linear up_proj = nullptr, down_proj = nullptr;
};

class TransformerPolicy : public ActorCritic {
 public:
  // Draws the weights from torch's default generator (torch::manual_seed). Throws
  // std::invalid_argument if an option is out of range or does not divide.
  explicit TransformerPolicy(const TransformerPolicyOptions& options);

  // observations: (batch, height * width * planes), cells in row-major order, planes
  // innermost.
  PolicyOutput forward(const torch::Tensor& observations) override;

  const TransformerPolicyOptions& options() const { return options_; }

 private:
  TransformerPolicyOptions options_;
  torch::nn::Linear patch_projection_ = nullptr;
  torch::nn::Embedding position_ = nullptr;  // (1 + tokens, d_model), row 0 reads out
  std::vector<std::shared_ptr<TransformerLayer>> layers_;
  torch::nn::LayerNorm final_norm_ = nullptr;
  torch::nn::Linear policy_head_ = nullptr, value_head_ = nullptr;
};

}  // namespace pion::lab
