// SPDX-License-Identifier: Apache-2.0
// A Hugging Face model folder: config.json, model.safetensors or its shards, and whatever
// belongs to the tokenizer, which is copied and never read here.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "lab/models/causal_lm.h"

namespace pion::lab {

// Checks and reads config.json, and the stop and padding tokens of generation_config.json
// where there is one. Throws std::invalid_argument.
CausalLmConfig load_model_config(const std::filesystem::path& folder);

// Loads config and weights, stored as f32, bf16 or f16. `dtype` ("float32", "bfloat16")
// is the type they take, empty: the config's. Throws std::invalid_argument: no config, no
// weights, a shard or a tensor missing, a wrong shape or type, tensors that do not
// belong.
std::shared_ptr<CausalLm> load_model_folder(const std::filesystem::path& folder,
                                            const std::string& dtype = "");

// Writes config.json, generation_config.json and model.safetensors into a new or existing
// folder that `transformers` loads; copies tokenizer files, and generation_config.json if
// it is there, from `tokenizer_from` unless empty. Each file is written under a temporary
// name and renamed, config.json last. Throws std::runtime_error (full disk).
void save_model_folder(const std::filesystem::path& folder, const CausalLm& model,
                       const std::filesystem::path& tokenizer_from = {});

}  // namespace pion::lab
