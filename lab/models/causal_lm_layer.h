// SPDX-License-Identifier: Apache-2.0
// The modules of CausalLm. Names of classes and members are what routing and Hugging Face
// call them.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "lab/models/causal_lm_config.h"
#include "lab/models/causal_lm_pack.h"

namespace pion::lab {

// y = x W^T + b, weights not drawn.
struct Linear : torch::nn::Module {
  Linear(std::int64_t in, std::int64_t out, bool with_bias, torch::ScalarType dtype);
  torch::Tensor forward(const torch::Tensor& x) const;

  torch::Tensor weight, bias;  // (out, in); (out), undefined without
};

struct Embedding : torch::nn::Module {
  Embedding(std::int64_t tokens, std::int64_t width, torch::ScalarType dtype);
  torch::Tensor weight;  // (tokens, width)
};

// y = x / sqrt(mean(x^2) + eps) * weight over the last dimension, in f32.
struct RmsNorm : torch::nn::Module {
  RmsNorm(std::int64_t width, double eps, torch::ScalarType dtype);
  torch::Tensor forward(const torch::Tensor& x) const;

  torch::Tensor weight;  // (width)
  double eps;
};

struct CausalAttention : torch::nn::Module {
  CausalAttention(const CausalLmConfig& config, torch::ScalarType dtype);
  // x: (tokens, hidden_size).
  torch::Tensor forward(const torch::Tensor& x, const TokenPack& pack,
                        const Rotation& rotation) const;

  std::int64_t heads, kv_heads, head_dim;
  std::shared_ptr<Linear> q_proj, k_proj, v_proj, o_proj;
  std::shared_ptr<RmsNorm> q_norm, k_norm;  // Qwen3; null otherwise
};

struct GatedMlp : torch::nn::Module {
  GatedMlp(const CausalLmConfig& config, torch::ScalarType dtype);
  torch::Tensor forward(const torch::Tensor& x) const;

  std::shared_ptr<Linear> gate_proj, up_proj, down_proj;
};

struct DecoderLayer : torch::nn::Module {
  DecoderLayer(const CausalLmConfig& config, torch::ScalarType dtype);
  torch::Tensor forward(const torch::Tensor& x, const TokenPack& pack,
                        const Rotation& rotation) const;

  std::shared_ptr<CausalAttention> self_attn;
  std::shared_ptr<GatedMlp> mlp;
  std::shared_ptr<RmsNorm> input_layernorm, post_attention_layernorm;
};

// Everything below the head: "model" in parameter names.
struct DecoderStack : torch::nn::Module {
  DecoderStack(const CausalLmConfig& config, torch::ScalarType dtype);

  std::shared_ptr<Embedding> embed_tokens;
  std::vector<std::shared_ptr<DecoderLayer>> layers;
  std::shared_ptr<RmsNorm> norm;
  torch::Tensor inverse_frequencies;  // (head_dim / 2) f32, of the rotation; no buffer
};

torch::ScalarType weight_type(const CausalLmConfig& config);

}  // namespace pion::lab
