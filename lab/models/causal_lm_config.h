// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pion::lab {

enum class LmArchitecture { kLlama, kQwen2, kQwen3 };

// Llama 3's stretching of slow rotations, config.json's rope_scaling of type "llama3":
// wavelengths above original / low_freq_factor are multiplied by `factor`, those below
// original / high_freq_factor stay, those between are interpolated.
struct Llama3Rope {
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  std::int64_t original_max_position_embeddings = 8192;
};

// What a Hugging Face config.json says of a decoder-only transformer. Names are its own.
struct CausalLmConfig {
  LmArchitecture architecture = LmArchitecture::kQwen2;
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 128;
  std::int64_t intermediate_size = 256;
  std::int64_t num_hidden_layers = 4;
  std::int64_t num_attention_heads = 4;
  std::int64_t num_key_value_heads = 2;        // divides num_attention_heads
  std::int64_t head_dim = 32;                  // even; need not be hidden_size / heads
  std::int64_t max_position_embeddings = 512;  // longest prompt plus answer, in tokens
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  std::optional<Llama3Rope> rope_scaling;
  bool tie_word_embeddings = false;
  // Of q, k, v: Qwen2 has always, Qwen3 and Llama if the file says so, and then o_proj
  // too.
  bool attention_bias = true;
  bool mlp_bias = false;            // Llama only
  double initializer_range = 0.02;  // standard deviation of fresh weights
  std::string dtype = "float32";    // of the weights: "float32" or "bfloat16"
  // Stop tokens, start and padding as the folder gives them; may be empty.
  std::vector<std::int64_t> eos_token_ids;
  std::optional<std::int64_t> bos_token_id;
  std::optional<std::int64_t> pad_token_id;

  bool output_bias() const {
    return attention_bias && architecture != LmArchitecture::kQwen2;
  }
};

// Throws std::invalid_argument that begins with `where` if sizes are out of range or do
// not divide.
void check_model_config(const CausalLmConfig& config, const std::string& where);

// Checks and reads config.json's text. Throws std::invalid_argument that begins with
// `where`: not JSON, unknown architecture (with those known), a key missing or out of
// range, a feature that is not supported (sliding windows in use, a kind of rope_scaling,
// ...).
CausalLmConfig parse_model_config(std::string_view json, const std::string& where);

// config.json's text, which `transformers` and parse_model_config() read.
std::string model_config_json(const CausalLmConfig& config);

}  // namespace pion::lab
