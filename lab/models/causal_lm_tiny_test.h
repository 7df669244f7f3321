// SPDX-License-Identifier: Apache-2.0
// Small models for the tests beside this file.
#pragma once

#include "lab/models/causal_lm.h"

namespace pion::lab {

inline CausalLmConfig tiny_config(LmArchitecture architecture = LmArchitecture::kQwen2) {
  CausalLmConfig config{.architecture = architecture,
                        .vocab_size = 23,
                        .hidden_size = 24,
                        .intermediate_size = 40,
                        .num_hidden_layers = 3,
                        .num_attention_heads = 6,
                        .num_key_value_heads = 2,
                        .head_dim = 10,  // not hidden_size / heads, no multiple of 16
                        .max_position_embeddings = 128,
                        .attention_bias = architecture == LmArchitecture::kQwen2,
                        .initializer_range = 0.3};
  return config;
}

// Biases and gains take values of their own too.
inline std::shared_ptr<CausalLm> tiny_model(const CausalLmConfig& config,
                                            std::uint64_t seed = 1) {
  torch::manual_seed(seed);
  auto model = std::make_shared<CausalLm>(config);
  const torch::NoGradGuard no_gradients;
  for (torch::Tensor& weight : model->parameters())
    if (weight.dim() == 1) weight.add_(0.2 * torch::randn_like(weight));
  return model;
}

}  // namespace pion::lab
