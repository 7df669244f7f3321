// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pion::lab {

enum class LmArchitecture { kLlama, kQwen2, kQwen3 };

// What a Hugging Face config.json says of a decoder-only transformer. Names are its own.
struct CausalLmConfig {
  LmArchitecture architecture = LmArchitecture::kQwen2;
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 128;
  std::int64_t intermediate_size = 256;
  std::int64_t num_hidden_layers = 4;
  std::int64_t num_attention_heads = 4;
  std::int64_t num_key_value_heads = 2;  // divides num_attention_heads
  std::int64_t head_dim = 32;
  std::int64_t max_position_embeddings = 512;  // longest prompt plus answer, in tokens
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  bool tie_word_embeddings = false;
  bool attention_bias = true;       // of q, k, v: Qwen2 true, Qwen3 and Llama false
  double initializer_range = 0.02;  // standard deviation of fresh weights
  std::string dtype = "float32";    // of the stored weights: "float32" or "bfloat16"
  // Stop tokens and padding as the folder gives them; may be empty.
  std::vector<std::int64_t> eos_token_ids;
  std::optional<std::int64_t> pad_token_id;
};

// Keys and values of all layers for tokens seen so far.
class KvCache;

// A pre-norm transformer as Qwen2/2.5, Qwen3 (query and key normalized per head) and
// Llama have it; parameter names are Hugging Face's ("model.layers.0.self_attn.q_proj.weight").
//
//   x = x + o_proj(attention(rope(q), rope(k), v))   q, k, v of rms_norm(x)
//   x = x + down_proj(silu(gate_proj(y)) * up_proj(y))   y = rms_norm(x)
//   logits = lm_head(rms_norm(x)), or the embedding transposed if tied
class CausalLm : public torch::nn::Module {
 public:
  // Draws the weights, N(0, initializer_range^2), from torch's default generator. Throws
  // std::invalid_argument if sizes do not divide.
  explicit CausalLm(const CausalLmConfig& config);

  // tokens: (batch, length) i64; rows are padded on the left, `starts` (batch) i64 is each
  // row's first real position. Positions count from there. Returns the hidden states after
  // the last norm, (batch, length, hidden_size). With a cache, `tokens` continue what it
  // holds, `starts` is that of the first call, and no gradient may be asked for.
  torch::Tensor hidden(const torch::Tensor& tokens, const torch::Tensor& starts,
                       KvCache* cache = nullptr);

  // (..., hidden_size) -> (..., vocab_size) f32.
  torch::Tensor logits(const torch::Tensor& hidden) const;

  const CausalLmConfig& config() const { return config_; }

  // Recomputes each layer in the backward pass instead of keeping what it needs.
  void set_gradient_checkpointing(bool on) { checkpointing_ = on; }

 private:
  CausalLmConfig config_;
  bool checkpointing_ = false;
  // ... the owner completes this
};

}  // namespace pion::lab
