// SPDX-License-Identifier: Apache-2.0
// A Hugging Face model folder: config.json, model.safetensors or its shards, and whatever
// belongs to the tokenizer, which is copied and never read here.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "lab/models/causal_lm.h"

namespace pion::lab {

// Checks and reads config.json's text. Throws std::invalid_argument that begins with `where`:
// not JSON, unknown architecture (with those known), a key missing or out of range, a feature
// that is not supported (sliding windows in use, a kind of rope_scaling, ...).
CausalLmConfig parse_model_config(std::string_view json, const std::string& where);

// Loads config and weights. Throws std::invalid_argument: no config, no weights, a shard or a
// tensor missing, a wrong shape or type, tensors that do not belong.
std::shared_ptr<CausalLm> load_model_folder(const std::filesystem::path& folder);

// Writes config.json, generation_config.json and model.safetensors into a new or existing
// folder that `transformers` loads; copies tokenizer files from `tokenizer_from` unless empty.
// Files are written under temporary names and renamed. Throws std::runtime_error (full disk).
void save_model_folder(const std::filesystem::path& folder, const CausalLm& model,
                       const std::filesystem::path& tokenizer_from = {});

}  // namespace pion::lab
