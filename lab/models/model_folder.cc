// SPDX-License-Identifier: Apache-2.0
#include "lab/models/model_folder.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "lab/files/durable_file.h"
#include "lab/files/safetensors.h"
#include "lab/files/shown_text.h"
#include "lab/files/tensor_file.h"
#include "lab/files/weight_index.h"
#include "lab/models/causal_lm_layer.h"
#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Shape = std::vector<std::int64_t>;

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";
constexpr std::uintmax_t kMaxJson = 64u << 20;  // an index of 10^5 tensors has 10 MB

std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (const std::int64_t size : shape)
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

std::string read_text(const fs::path& path) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  if (error)
    throw std::invalid_argument(path.string() + ": cannot be read: " + error.message());
  if (size > kMaxJson)
    throw std::invalid_argument(path.string() + ": must have at most " +
                                std::to_string(kMaxJson) + " bytes, got " +
                                std::to_string(size));
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw std::invalid_argument(path.string() + ": cannot be read");
  return std::move(text).str();
}

// Name and shape of every tensor that the weights must hold.
std::map<std::string, Shape> expected_tensors(const CausalLmConfig& c) {
  std::map<std::string, Shape> all;
  const std::int64_t q = c.num_attention_heads * c.head_dim;
  const std::int64_t kv = c.num_key_value_heads * c.head_dim;
  const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t in,
                          bool bias) {
    all[name + ".weight"] = {out, in};
    if (bias) all[name + ".bias"] = {out};
  };
  all[kEmbedding] = {c.vocab_size, c.hidden_size};
  all["model.norm.weight"] = {c.hidden_size};
  all[kHead] = all[kEmbedding];  // where they are tied, one is enough
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    const std::string attention = layer + "self_attn.", mlp = layer + "mlp.";
    all[layer + "input_layernorm.weight"] = {c.hidden_size};
    all[layer + "post_attention_layernorm.weight"] = {c.hidden_size};
    linear(attention + "q_proj", q, c.hidden_size, c.attention_bias);
    linear(attention + "k_proj", kv, c.hidden_size, c.attention_bias);
    linear(attention + "v_proj", kv, c.hidden_size, c.attention_bias);
    linear(attention + "o_proj", c.hidden_size, q, c.output_bias());
    if (c.architecture == LmArchitecture::kQwen3) {
      all[attention + "q_norm.weight"] = {c.head_dim};
      all[attention + "k_norm.weight"] = {c.head_dim};
    }
    linear(mlp + "gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
    linear(mlp + "up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
    linear(mlp + "down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
  }
  return all;
}

// In files of some folders though nothing reads them.
bool is_ignored(const std::string& name) {
  return name.ends_with(".rotary_emb.inv_freq");
}

// The weight files of a folder: one, or the shards that its index names.
std::vector<fs::path> weight_files(const fs::path& folder) {
  const fs::path single = folder / "model.safetensors";
  if (fs::is_regular_file(single)) return {single};
  const fs::path index = folder / "model.safetensors.index.json";
  if (!fs::is_regular_file(index)) {
    const bool pickled = fs::exists(folder / "pytorch_model.bin") ||
                         fs::exists(folder / "pytorch_model.bin.index.json");
    throw std::invalid_argument(
        folder.string() +
        ": must hold model.safetensors or model.safetensors.index.json, got neither" +
        (pickled ? "; pytorch_model.bin is a pickle, which can run code and is not read: "
                   "save it again by transformers' save_pretrained"
                 : ""));
  }
  std::vector<fs::path> files;
  for (const std::string& name : parse_weight_index(read_text(index), index.string()))
    files.push_back(folder / name);
  for (const fs::path& path : files)
    if (!fs::is_regular_file(path))
      throw std::invalid_argument(path.string() + ": is missing, though " +
                                  index.filename().string() + " names it");
  return files;
}

struct Place {
  const SafetensorsFile* file;
  const TensorRecord* record;
};

using Places = std::map<std::string, Place>;

torch::Tensor tensor_at(const Place& place) {
  return read_tensor(*place.file, *place.record);
}

// Of a tied pair a file holds the embedding, or, as safetensors' save_model leaves it,
// the head alone, which then is both.
void tie(Places& places) {
  const auto head = places.find(kHead);
  if (head == places.end()) return;
  const auto [embedding, alone] = places.emplace(kEmbedding, head->second);
  if (!alone && !torch::equal(tensor_at(embedding->second).to(torch::kFloat32),
                              tensor_at(head->second).to(torch::kFloat32)))
    throw std::invalid_argument(
        head->second.file->path().string() + ": tensor \"" + kHead + "\" must equal \"" +
        kEmbedding +
        "\", since config.json says tie_word_embeddings, but differs; set that to false, "
        "or leave the tensor out");
  places.erase(head);
}

// Where each expected tensor lies; names, shapes and types are checked here.
Places locate(const std::vector<SafetensorsFile>& files, const CausalLmConfig& config) {
  std::map<std::string, Shape> expected = expected_tensors(config);
  Places places;
  for (const SafetensorsFile& file : files) {
    const std::string where = file.path().string();
    for (const auto& [name, record] : file.header().tensors) {
      if (is_ignored(name)) continue;
      const auto own = expected.find(name);
      if (own == expected.end())
        throw std::invalid_argument(where + ": tensor \"" + shortened(name) +
                                    "\" does not belong to the model of config.json");
      if (record.shape != own->second)
        throw std::invalid_argument(where + ": tensor \"" + name +
                                    "\" must have the shape " + shape_text(own->second) +
                                    " by config.json, got " + shape_text(record.shape));
      if (record.type != TensorType::kF32 && record.type != TensorType::kBF16 &&
          record.type != TensorType::kF16)
        throw std::invalid_argument(where + ": tensor \"" + name +
                                    "\" must be F32, BF16 or F16, got " + record.tag);
      if (!places.emplace(name, Place{&file, &record}).second)
        throw std::invalid_argument(where + ": tensor \"" + name +
                                    "\" is in another file of this folder too");
    }
  }
  if (config.tie_word_embeddings) {
    tie(places);
    expected.erase(kHead);
  }
  for (const auto& [name, shape] : expected)
    if (!places.contains(name))
      throw std::invalid_argument(files.front().path().parent_path().string() +
                                  ": the weights lack tensor \"" + name + "\"" +
                                  (name == kHead || name == kEmbedding
                                       ? "; is tie_word_embeddings right in config.json?"
                                       : ""));
  return places;
}

constexpr std::array kTokenizerFiles = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
};

std::string generation_config_json(const CausalLmConfig& config) {
  const Json all = parse_json<Json>(model_config_json(config));
  nlohmann::ordered_json own;
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    if (!all.at(key).is_null()) own[key] = all.at(key);
  own["do_sample"] = false;
  return own.dump(2) + "\n";
}

// Like a write of the whole: a reader sees the old weights or the new ones.
void write_weights(const fs::path& folder, const CausalLm& model) {
  TensorMap tensors;
  for (const auto& item : model.named_parameters())
    tensors.emplace(item.key(), item.value());
  const fs::path temporary = folder / ".model.safetensors.unfinished";
  try {
    fs::remove(temporary);
    write_tensors(temporary, tensors, {{"format", "pt"}});  // what transformers asks for
    fs::rename(temporary, folder / "model.safetensors");
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

}  // namespace

CausalLmConfig load_model_config(const fs::path& folder) {
  if (!fs::is_directory(folder))
    throw std::invalid_argument(fs::absolute(folder).string() +
                                ": must be a model folder, got " +
                                (fs::exists(folder) ? "a file" : "nothing"));
  const fs::path path = folder / "config.json";
  if (!fs::is_regular_file(path))
    throw std::invalid_argument(folder.string() + ": must hold config.json, got none");
  CausalLmConfig config = parse_model_config(read_text(path), path.string());
  const fs::path more = folder / "generation_config.json";
  if (!fs::is_regular_file(more)) return config;
  // its tokens take precedence; the rest of config.json fills what a config needs
  const Json generation = try_json<Json>(read_text(more));
  if (!generation.is_object())
    throw std::invalid_argument(more.string() + ": must be a JSON object");
  Json merged = parse_json<Json>(model_config_json(config));
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    if (generation.contains(key) && !generation[key].is_null())
      merged[key] = generation[key];
  const CausalLmConfig with = parse_model_config(merged.dump(), more.string());
  config.bos_token_id = with.bos_token_id;
  config.eos_token_ids = with.eos_token_ids;
  config.pad_token_id = with.pad_token_id;
  return config;
}

std::shared_ptr<CausalLm> load_model_folder(const fs::path& folder,
                                            const std::string& dtype) {
  CausalLmConfig config = load_model_config(folder);
  if (!dtype.empty()) config.dtype = dtype;
  check_model_config(config, "load_model_folder");
  std::vector<SafetensorsFile> files;
  for (const fs::path& path : weight_files(folder)) files.emplace_back(path);
  const Places places = locate(files, config);
  auto model = std::make_shared<CausalLm>(config, /*draw=*/false);
  const torch::NoGradGuard no_gradients;
  for (const auto& item : model->named_parameters())
    torch::Tensor(item.value()).copy_(tensor_at(places.at(item.key())));
  return model;
}

void save_model_folder(const fs::path& folder, const CausalLm& model,
                       const fs::path& tokenizer_from) {
  fs::create_directories(folder);
  std::error_code error;
  const bool same =
      !tokenizer_from.empty() && fs::equivalent(folder, tokenizer_from, error);
  bool has_generation_config = same && fs::exists(folder / "generation_config.json");
  if (!tokenizer_from.empty() && !same)
    for (const char* name : kTokenizerFiles) {
      if (!fs::is_regular_file(tokenizer_from / name)) continue;
      std::ifstream file(tokenizer_from / name, std::ios::binary);
      std::ostringstream text;
      text << file.rdbuf();
      if (!file)
        throw std::runtime_error((tokenizer_from / name).string() + ": cannot be read");
      replace_file(folder / name, std::move(text).str());
      has_generation_config =
          has_generation_config || name == std::string("generation_config.json");
    }
  if (!has_generation_config)
    replace_file(folder / "generation_config.json",
                 generation_config_json(model.config()));
  write_weights(folder, model);
  replace_file(folder / "config.json", model_config_json(model.config()));
  sync_directory(folder);
}

}  // namespace pion::lab
