// SPDX-License-Identifier: Apache-2.0
#include "lab/models/transformer_policy.h"

#include <cmath>
#include <stdexcept>
#include <string>

namespace pion::lab {
namespace {

torch::nn::Linear orthogonal_linear(std::int64_t in, std::int64_t out, double gain,
                                    bool bias) {
  torch::nn::Linear layer(torch::nn::LinearOptions(in, out).bias(bias));
  torch::nn::init::orthogonal_(layer->weight, gain);
  if (bias) torch::nn::init::zeros_(layer->bias);
  return layer;
}

torch::nn::LayerNorm layer_norm(std::int64_t d_model) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({d_model}));
}

[[noreturn]] void refuse(const std::string& what, std::int64_t got) {
  throw std::invalid_argument("TransformerPolicy: " + what + ", got " +
                              std::to_string(got));
}

TransformerPolicyOptions checked(const TransformerPolicyOptions& o) {
  if (o.height < 1) refuse("height must be >= 1", o.height);
  if (o.width < 1) refuse("width must be >= 1", o.width);
  if (o.planes < 1) refuse("planes must be >= 1", o.planes);
  if (o.actions < 1) refuse("actions must be >= 1", o.actions);
  if (o.d_model < 1) refuse("d_model must be >= 1", o.d_model);
  if (o.num_layers < 1) refuse("num_layers must be >= 1", o.num_layers);
  if (o.num_heads < 1 || o.d_model % o.num_heads != 0) {
    refuse("num_heads must divide d_model = " + std::to_string(o.d_model), o.num_heads);
  }
  if (o.patch < 1 || o.height % o.patch != 0 || o.width % o.patch != 0) {
    refuse("patch must divide the board, " + std::to_string(o.height) + " x " +
               std::to_string(o.width),
           o.patch);
  }
  if (!(o.mlp_ratio * o.d_model >= 1.0)) {
    refuse("mlp_ratio times d_model must be >= 1",
           static_cast<std::int64_t>(o.mlp_ratio));
  }
  return o;
}

}  // namespace

SelfAttention::SelfAttention(std::int64_t d_model, std::int64_t num_heads,
                             double output_gain)
    : num_heads(num_heads) {
  q_proj = register_module("q_proj", orthogonal_linear(d_model, d_model, 1.0, false));
  k_proj = register_module("k_proj", orthogonal_linear(d_model, d_model, 1.0, false));
  v_proj = register_module("v_proj", orthogonal_linear(d_model, d_model, 1.0, false));
  o_proj =
      register_module("o_proj", orthogonal_linear(d_model, d_model, output_gain, false));
}

torch::Tensor SelfAttention::forward(const torch::Tensor& x, std::int64_t queries) {
  const std::int64_t batch = x.size(0), tokens = x.size(1), d_model = x.size(2);
  const auto split = [&](const torch::Tensor& y, std::int64_t count) {
    return y.view({batch, count, num_heads, d_model / num_heads}).transpose(1, 2);
  };
  const torch::Tensor from = queries == tokens ? x : x.narrow(1, 0, queries);
  const torch::Tensor read = torch::scaled_dot_product_attention(
      split(q_proj(from), queries), split(k_proj(x), tokens), split(v_proj(x), tokens));
  return o_proj(read.transpose(1, 2).reshape({batch, queries, d_model}));
}

TransformerLayer::TransformerLayer(const TransformerPolicyOptions& o) {
  const auto hidden = static_cast<std::int64_t>(std::lround(o.mlp_ratio * o.d_model));
  const double residual_gain = 1.0 / std::sqrt(2.0 * o.num_layers);
  attention_norm = register_module("attention_norm", layer_norm(o.d_model));
  attention = register_module("attention", std::make_shared<SelfAttention>(
                                               o.d_model, o.num_heads, residual_gain));
  mlp_norm = register_module("mlp_norm", layer_norm(o.d_model));
  up_proj = register_module("up_proj",
                            orthogonal_linear(o.d_model, hidden, std::sqrt(2.0), true));
  down_proj = register_module("down_proj",
                              orthogonal_linear(hidden, o.d_model, residual_gain, true));
}

torch::Tensor TransformerLayer::forward(const torch::Tensor& x, std::int64_t queries) {
  const torch::Tensor kept = queries == x.size(1) ? x : x.narrow(1, 0, queries);
  const torch::Tensor y = kept + attention->forward(attention_norm(x), queries);
  return y + down_proj(torch::gelu(up_proj(mlp_norm(y)), "tanh"));
}

TransformerPolicy::TransformerPolicy(const TransformerPolicyOptions& options)
    : options_(checked(options)) {
  const TransformerPolicyOptions& o = options_;
  const std::int64_t tokens = (o.height / o.patch) * (o.width / o.patch);
  patch_projection_ = register_module(
      "patch_projection",
      orthogonal_linear(o.patch * o.patch * o.planes, o.d_model, std::sqrt(2.0), true));
  position_ = register_module("position", torch::nn::Embedding(1 + tokens, o.d_model));
  torch::nn::init::normal_(position_->weight, 0.0, 0.1);
  for (std::int64_t i = 0; i < o.num_layers; ++i) {
    layers_.push_back(register_module("layer" + std::to_string(i),
                                      std::make_shared<TransformerLayer>(options_)));
  }
  final_norm_ = register_module("final_norm", layer_norm(o.d_model));
  policy_head_ =
      register_module("policy_head", orthogonal_linear(o.d_model, o.actions, 0.01, true));
  value_head_ = register_module("value_head", orthogonal_linear(o.d_model, 1, 1.0, true));
}

PolicyOutput TransformerPolicy::forward(const torch::Tensor& observations) {
  const TransformerPolicyOptions& o = options_;
  const std::int64_t batch = observations.size(0), p = o.patch;
  const std::int64_t rows = o.height / p, cols = o.width / p;
  // (batch, rows, p, cols, p, planes) -> (batch, tokens, p p planes)
  const torch::Tensor patches = observations.view({batch, rows, p, cols, p, o.planes})
                                    .permute({0, 1, 3, 2, 4, 5})
                                    .reshape({batch, rows * cols, p * p * o.planes});
  const torch::Tensor tokens =
      patch_projection_(patches) + position_->weight.narrow(0, 1, rows * cols);
  const torch::Tensor readout =
      position_->weight.narrow(0, 0, 1).expand({batch, 1, o.d_model});
  torch::Tensor x = torch::cat({readout, tokens}, 1);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    x = layers_[i]->forward(x, i + 1 < layers_.size() ? x.size(1) : 1);
  }
  x = final_norm_(x.select(1, 0));
  return {policy_head_(x), value_head_(x).squeeze(-1)};
}

}  // namespace pion::lab
