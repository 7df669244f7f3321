// SPDX-License-Identifier: Apache-2.0
#include "lab/models/causal_lm_layer.h"

#include <cmath>
#include <string>

#include "lab/models/causal_lm_attention.h"
#include "lab/models/causal_lm_fused.h"

namespace pion::lab {
namespace {

// In f32, as Hugging Face computes them, so that angles are the same to the bit.
torch::Tensor rotation_frequencies(const CausalLmConfig& config) {
  const torch::Tensor exponents =
      torch::arange(0, config.head_dim, 2).to(torch::kFloat32) / config.head_dim;
  const torch::Tensor plain = 1.0 / torch::pow(config.rope_theta, exponents);
  if (!config.rope_scaling) return plain;
  const Llama3Rope& rope = *config.rope_scaling;
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  const torch::Tensor wavelength = 2 * M_PI / plain;
  const torch::Tensor weight = ((original / wavelength - rope.low_freq_factor) /
                                (rope.high_freq_factor - rope.low_freq_factor))
                                   .clamp(0.0, 1.0);  // of the unscaled frequency
  return (1 - weight) * plain / rope.factor + weight * plain;
}

}  // namespace

torch::ScalarType weight_type(const CausalLmConfig& config) {
  return config.dtype == "bfloat16" ? torch::kBFloat16 : torch::kFloat32;
}

Linear::Linear(std::int64_t in, std::int64_t out, bool with_bias,
               torch::ScalarType dtype) {
  weight = register_parameter("weight", torch::empty({out, in}, dtype));
  if (with_bias) bias = register_parameter("bias", torch::empty({out}, dtype));
}

torch::Tensor Linear::forward(const torch::Tensor& x) const {
  return at::linear(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

Embedding::Embedding(std::int64_t tokens, std::int64_t width, torch::ScalarType dtype) {
  weight = register_parameter("weight", torch::empty({tokens, width}, dtype));
}

RmsNorm::RmsNorm(std::int64_t width, double epsilon, torch::ScalarType dtype)
    : eps(epsilon) {
  weight = register_parameter("weight", torch::empty({width}, dtype));
}

torch::Tensor RmsNorm::forward(const torch::Tensor& x) const {
  return rms_norm(x, weight, eps);
}

CausalAttention::CausalAttention(const CausalLmConfig& config, torch::ScalarType dtype)
    : heads(config.num_attention_heads),
      kv_heads(config.num_key_value_heads),
      head_dim(config.head_dim) {
  const std::int64_t hidden = config.hidden_size;
  const bool bias = config.attention_bias;
  const auto linear = [&](const char* name, std::int64_t in, std::int64_t out, bool b) {
    return register_module(name, std::make_shared<Linear>(in, out, b, dtype));
  };
  q_proj = linear("q_proj", hidden, heads * head_dim, bias);
  k_proj = linear("k_proj", hidden, kv_heads * head_dim, bias);
  v_proj = linear("v_proj", hidden, kv_heads * head_dim, bias);
  o_proj = linear("o_proj", heads * head_dim, hidden, config.output_bias());
  if (config.architecture == LmArchitecture::kQwen3) {
    const auto norm = [&](const char* name) {
      return register_module(
          name, std::make_shared<RmsNorm>(head_dim, config.rms_norm_eps, dtype));
    };
    q_norm = norm("q_norm");
    k_norm = norm("k_norm");
  }
}

torch::Tensor CausalAttention::forward(const torch::Tensor& x, const TokenPack& pack,
                                       const Rotation& rotation) const {
  torch::Tensor q = q_proj->forward(x).view({-1, heads, head_dim});
  torch::Tensor k = k_proj->forward(x).view({-1, kv_heads, head_dim});
  const torch::Tensor v = v_proj->forward(x).view({-1, kv_heads, head_dim});
  if (q_norm) {
    q = q_norm->forward(q);
    k = k_norm->forward(k);
  }
  const torch::Tensor mixed = packed_attention(q, k, v, rotation, pack);
  return o_proj->forward(mixed.flatten(1));
}

GatedMlp::GatedMlp(const CausalLmConfig& config, torch::ScalarType dtype) {
  const std::int64_t hidden = config.hidden_size, wide = config.intermediate_size;
  const auto linear = [&](const char* name, std::int64_t in, std::int64_t out) {
    return register_module(name,
                           std::make_shared<Linear>(in, out, config.mlp_bias, dtype));
  };
  gate_proj = linear("gate_proj", hidden, wide);
  up_proj = linear("up_proj", hidden, wide);
  down_proj = linear("down_proj", wide, hidden);
}

torch::Tensor GatedMlp::forward(const torch::Tensor& x) const {
  return down_proj->forward(gated(gate_proj->forward(x), up_proj->forward(x)));
}

DecoderLayer::DecoderLayer(const CausalLmConfig& config, torch::ScalarType dtype) {
  const auto norm = [&](const char* name) {
    return register_module(
        name, std::make_shared<RmsNorm>(config.hidden_size, config.rms_norm_eps, dtype));
  };
  self_attn =
      register_module("self_attn", std::make_shared<CausalAttention>(config, dtype));
  mlp = register_module("mlp", std::make_shared<GatedMlp>(config, dtype));
  input_layernorm = norm("input_layernorm");
  post_attention_layernorm = norm("post_attention_layernorm");
}

torch::Tensor DecoderLayer::forward(const torch::Tensor& x, const TokenPack& pack,
                                    const Rotation& rotation) const {
  const torch::Tensor y =
      x + self_attn->forward(input_layernorm->forward(x), pack, rotation);
  return y + mlp->forward(post_attention_layernorm->forward(y));
}

DecoderStack::DecoderStack(const CausalLmConfig& config, torch::ScalarType dtype)
    : inverse_frequencies(rotation_frequencies(config)) {
  embed_tokens = register_module(
      "embed_tokens",
      std::make_shared<Embedding>(config.vocab_size, config.hidden_size, dtype));
  torch::nn::ModuleList list;
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    layers.push_back(std::make_shared<DecoderLayer>(config, dtype));
    list->push_back(layers.back());
  }
  register_module("layers", list);
  norm = register_module(
      "norm", std::make_shared<RmsNorm>(config.hidden_size, config.rms_norm_eps, dtype));
}

}  // namespace pion::lab
