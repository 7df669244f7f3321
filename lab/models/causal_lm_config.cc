// SPDX-License-Identifier: Apache-2.0
#include "lab/models/causal_lm_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

using ConfigJson = nlohmann::json;

struct Known {
  LmArchitecture architecture;
  const char* model_type;
  const char* class_name;
};
constexpr std::array<Known, 3> kKnown = {{
    {LmArchitecture::kLlama, "llama", "LlamaForCausalLM"},
    {LmArchitecture::kQwen2, "qwen2", "Qwen2ForCausalLM"},
    {LmArchitecture::kQwen3, "qwen3", "Qwen3ForCausalLM"},
}};

// Reads keys of one JSON object; every message begins with where and the key.
class Reader {
 public:
  Reader(const ConfigJson& object, std::string where)
      : object_(object), where_(std::move(where)) {}

  [[noreturn]] void fail(const std::string& key, const std::string& what) const {
    const ConfigJson* value = find(key);
    throw std::invalid_argument(where_ + ": " + key + " must be " + what + ", got " +
                                (value ? shortened(*value) : std::string("nothing")));
  }

  // Null counts as absent, as in Hugging Face's files.
  const ConfigJson* find(const std::string& key) const {
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }

  std::int64_t integer(const std::string& key, std::optional<std::int64_t> otherwise,
                       std::int64_t low, std::int64_t high) const {
    const ConfigJson* value = find(key);
    if (!value && otherwise) return *otherwise;
    const std::string range =
        "an integer in [" + std::to_string(low) + ", " + std::to_string(high) + "]";
    if (!value || !value->is_number_integer()) fail(key, range);
    if (value->is_number_unsigned() &&
        value->get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max())
      fail(key, range);
    const auto number = value->get<std::int64_t>();
    if (number < low || number > high) fail(key, range);
    return number;
  }

  double positive(const std::string& key, std::optional<double> otherwise) const {
    const ConfigJson* value = find(key);
    if (!value && otherwise) return *otherwise;
    const bool good = value && value->is_number() &&
                      std::isfinite(value->get<double>()) && value->get<double>() > 0;
    if (!good) fail(key, "a positive number");
    return value->get<double>();
  }

  bool boolean(const std::string& key, bool otherwise) const {
    const ConfigJson* value = find(key);
    if (!value) return otherwise;
    if (!value->is_boolean()) fail(key, "true or false");
    return value->get<bool>();
  }

  std::string text(const std::string& key, const std::string& otherwise) const {
    const ConfigJson* value = find(key);
    if (!value) return otherwise;
    if (!value->is_string()) fail(key, "a text");
    return value->get<std::string>();
  }

 private:
  // of a value that may be a novel
  static std::string shortened(const ConfigJson& value) {
    std::string text = value.dump(-1, ' ', true, ConfigJson::error_handler_t::replace);
    if (text.size() > 80) text = text.substr(0, 77) + "...";
    return text;
  }

  const ConfigJson& object_;
  std::string where_;
};

constexpr std::int64_t kMaxSize = 1 << 30;  // of one dimension: far above any model's
constexpr std::int64_t kMaxLayers = 1 << 16;

// What rope_scaling and rope_parameters may hold.
constexpr std::array<std::string_view, 8> kRopeKeys = {"rope_type",
                                                       "type",
                                                       "rope_theta",
                                                       "factor",
                                                       "low_freq_factor",
                                                       "high_freq_factor",
                                                       "original_max_position_embeddings",
                                                       "partial_rotary_factor"};

LmArchitecture read_architecture(const Reader& reader, const std::string& where) {
  const std::string type = reader.text("model_type", "");
  std::string names;
  for (const Known& one : kKnown) {
    if (type == one.model_type) return one.architecture;
    names += (names.empty() ? "" : ", ") + std::string(one.model_type);
  }
  throw std::invalid_argument(
      where + ": model_type must be one of " + names + ", got " +
      (type.empty() ? "nothing" : "\"" + type.substr(0, 80) + "\""));
}

// Llama 3's stretching. Where the file does not say for which context the model was made
// it is, as in transformers, the present one.
Llama3Rope read_llama3(const Reader& rope, const Reader& reader,
                       const CausalLmConfig& config) {
  constexpr const char* kOriginal = "original_max_position_embeddings";
  Llama3Rope scaling;
  scaling.factor = rope.positive("factor", std::nullopt);
  scaling.low_freq_factor = rope.positive("low_freq_factor", std::nullopt);
  scaling.high_freq_factor = rope.positive("high_freq_factor", std::nullopt);
  // beside the rotary keys it takes precedence
  const Reader& at = reader.find(kOriginal) ? reader : rope;
  scaling.original_max_position_embeddings =
      at.integer(kOriginal, config.max_position_embeddings, 1, kMaxSize);
  if (scaling.high_freq_factor <= scaling.low_freq_factor)
    rope.fail("high_freq_factor", "above low_freq_factor");
  return scaling;
}

// The rotary keys, flat or those of the layers that attend to everything, which all do.
const ConfigJson& of_full_attention(const ConfigJson& found, const std::string& where) {
  const auto nested = [](const ConfigJson& value) { return value.is_object(); };
  if (std::none_of(found.begin(), found.end(), nested)) return found;
  const auto full = found.find("full_attention");
  if (full == found.end() || !full->is_object())
    throw std::invalid_argument(where +
                                ": must have \"full_attention\", the only kind of layer "
                                "that is supported, where it goes by kinds of layers");
  for (const auto& [name, value] : found.items())
    if (!value.is_object() && !value.is_null())
      throw std::invalid_argument(where + ": " + name.substr(0, 80) +
                                  " must be in \"full_attention\", since the keys go by "
                                  "kinds of layers");
  return *full;
}

// Either the old keys rope_theta and rope_scaling or the new one, rope_parameters; of
// both transformers takes rope_scaling.
void read_rope(const Reader& reader, const std::string& where, CausalLmConfig& config) {
  config.rope_theta = reader.positive("rope_theta", 10000.0);
  const char* key = "rope_scaling";
  const ConfigJson* found = reader.find(key);
  if (!found || found->empty()) found = reader.find(key = "rope_parameters");
  if (!found) return;
  if (!found->is_object()) reader.fail(key, "an object");
  const std::string inside = where + ": " + key;
  const ConfigJson& own = of_full_attention(*found, inside);
  const Reader rope(own, inside);
  const std::string type = rope.text("rope_type", rope.text("type", "default"));
  if (type != "default" && type != "llama3")
    throw std::invalid_argument(inside + " must be of type default or llama3, got \"" +
                                type.substr(0, 80) + "\"");
  for (const auto& [name, value] : own.items())
    if (std::find(kRopeKeys.begin(), kRopeKeys.end(), name) == kRopeKeys.end())
      rope.fail(name, "absent: it is not supported");
  if (rope.positive("partial_rotary_factor", 1.0) != 1.0)
    rope.fail("partial_rotary_factor", "1: rotary positions of a part are not supported");
  config.rope_theta = rope.positive("rope_theta", config.rope_theta);
  if (type == "llama3") config.rope_scaling = read_llama3(rope, reader, config);
}

// Keys of other models, or of changed ones, that would change the result, and the value
// with which they do not.
void refuse_foreign(const Reader& reader, LmArchitecture architecture) {
  struct Foreign {
    const char* key;
    ConfigJson neutral;  // null: absent
  };
  const bool norms = architecture == LmArchitecture::kQwen3;  // of queries and keys
  const Foreign foreign[] = {{"final_logit_softcapping", nullptr},
                             {"attn_logit_softcapping", nullptr},
                             {"logit_scale", 1.0},
                             {"logits_scaling", 1.0},
                             {"embedding_multiplier", 1.0},
                             {"residual_multiplier", 1.0},
                             {"attention_multiplier", nullptr},
                             {"query_pre_attn_scalar", nullptr},
                             {"scale_emb", 1.0},
                             {"scale_depth", nullptr},
                             {"clip_qkv", nullptr},
                             {"qk_norm", norms},
                             {"use_qk_norm", norms},
                             {"qk_layernorm", norms},
                             {"no_rope_layers", nullptr},
                             {"no_rope_layer_interval", nullptr},
                             {"rope_local_base_freq", nullptr},
                             {"rope_interleaved", false},
                             {"attn_output_gate", false},
                             {"use_mrope", false},
                             {"is_causal", true},
                             {"is_encoder_decoder", false},
                             {"add_cross_attention", false}};
  for (const Foreign& each : foreign)
    if (const ConfigJson* value = reader.find(each.key); value && *value != each.neutral)
      reader.fail(each.key, (each.neutral.is_null() ? "absent" : each.neutral.dump()) +
                                ": the model has no place for another value");
}

// What the model computes otherwise and would silently get wrong.
void refuse_unsupported(const Reader& reader, const std::string& where,
                        LmArchitecture architecture) {
  if (reader.boolean("use_sliding_window", false))
    throw std::invalid_argument(where +
                                ": use_sliding_window must be false, got true; "
                                "sliding windows are not supported");
  if (const ConfigJson* types = reader.find("layer_types")) {
    if (!types->is_array()) reader.fail("layer_types", "a list");
    for (const ConfigJson& type : *types)
      if (type != "full_attention")
        reader.fail("layer_types", "\"full_attention\" in every layer");
  }
  const std::string act = reader.text("hidden_act", "silu");
  if (act != "silu" && act != "swish") reader.fail("hidden_act", "\"silu\"");
  if (const ConfigJson* rotary = reader.find("partial_rotary_factor"))
    if (*rotary != 1.0) reader.fail("partial_rotary_factor", "1");
  if (reader.find("quantization_config"))
    reader.fail("quantization_config", "absent: quantized weights are not supported");
  refuse_foreign(reader, architecture);
}

void read_tokens(const Reader& reader, CausalLmConfig& config) {
  const std::int64_t last = config.vocab_size - 1;
  const auto token = [&](const std::string& key) -> std::optional<std::int64_t> {
    if (!reader.find(key)) return std::nullopt;
    // Hugging Face writes -1 for "none"
    const std::int64_t id = reader.integer(key, std::nullopt, -1, last);
    return id < 0 ? std::nullopt : std::optional(id);
  };
  config.bos_token_id = token("bos_token_id");
  config.pad_token_id = token("pad_token_id");
  const ConfigJson* eos = reader.find("eos_token_id");
  if (!eos) return;
  if (!eos->is_array()) {
    if (const auto id = token("eos_token_id")) config.eos_token_ids = {*id};
    return;
  }
  for (const ConfigJson& id : *eos) {
    if (!id.is_number_integer() || id < 0 || id > last)
      reader.fail("eos_token_id", "tokens in [0, " + std::to_string(last) + "]");
    config.eos_token_ids.push_back(id.get<std::int64_t>());
  }
}

void require(bool good, const std::string& where, const std::string& what,
             std::int64_t got) {
  if (!good)
    throw std::invalid_argument(where + ": " + what + ", got " + std::to_string(got));
}

}  // namespace

void check_model_config(const CausalLmConfig& config, const std::string& where) {
  const auto size = [&](const char* name, std::int64_t value, std::int64_t most) {
    require(value >= 1 && value <= most, where,
            std::string(name) + " must be in [1, " + std::to_string(most) + "]", value);
  };
  size("vocab_size", config.vocab_size, kMaxSize);
  size("hidden_size", config.hidden_size, kMaxSize);
  size("intermediate_size", config.intermediate_size, kMaxSize);
  size("num_hidden_layers", config.num_hidden_layers, kMaxLayers);
  size("num_attention_heads", config.num_attention_heads, kMaxLayers);
  size("num_key_value_heads", config.num_key_value_heads, kMaxLayers);
  size("head_dim", config.head_dim, kMaxLayers);
  size("max_position_embeddings", config.max_position_embeddings, kMaxSize);
  require(config.head_dim % 2 == 0, where, "head_dim must be even", config.head_dim);
  require(config.num_attention_heads % config.num_key_value_heads == 0, where,
          "num_key_value_heads must divide num_attention_heads, " +
              std::to_string(config.num_attention_heads),
          config.num_key_value_heads);
  if (config.dtype != "float32" && config.dtype != "bfloat16")
    throw std::invalid_argument(where + ": dtype must be float32 or bfloat16, got \"" +
                                config.dtype + "\"");
}

CausalLmConfig parse_model_config(std::string_view text, const std::string& where) {
  ConfigJson json;
  try {
    json = parse_json<ConfigJson>(text);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(where + ": " + error.what());
  }
  if (!json.is_object())
    throw std::invalid_argument(where + ": must be a JSON object, got " +
                                std::string(json.type_name()));
  const Reader reader(json, where);
  CausalLmConfig config;
  config.architecture = read_architecture(reader, where);
  refuse_unsupported(reader, where, config.architecture);
  const auto size = [&](const char* key, std::optional<std::int64_t> otherwise = {}) {
    return reader.integer(key, otherwise, 1, kMaxSize);
  };
  config.vocab_size = size("vocab_size");
  config.hidden_size = size("hidden_size");
  config.intermediate_size = size("intermediate_size");
  config.num_hidden_layers = size("num_hidden_layers");
  config.num_attention_heads = size("num_attention_heads");
  config.num_key_value_heads = size("num_key_value_heads", config.num_attention_heads);
  // Qwen3's class has 128 where the file is silent, the others the quotient
  const bool qwen3 = config.architecture == LmArchitecture::kQwen3;
  if (!qwen3 && !reader.find("head_dim"))
    require(config.hidden_size % config.num_attention_heads == 0, where,
            "num_attention_heads must divide hidden_size, " +
                std::to_string(config.hidden_size) + ", unless there is head_dim",
            config.num_attention_heads);
  config.head_dim =
      size("head_dim", qwen3 ? 128 : config.hidden_size / config.num_attention_heads);
  config.max_position_embeddings = size("max_position_embeddings");
  config.rms_norm_eps = reader.positive("rms_norm_eps", 1e-6);
  config.initializer_range = reader.positive("initializer_range", 0.02);
  config.tie_word_embeddings = reader.boolean("tie_word_embeddings", false);
  config.attention_bias = config.architecture == LmArchitecture::kQwen2 ||
                          reader.boolean("attention_bias", false);
  config.mlp_bias =
      config.architecture == LmArchitecture::kLlama && reader.boolean("mlp_bias", false);
  read_rope(reader, where, config);
  config.dtype = reader.text("dtype", reader.text("torch_dtype", "float32"));
  if (config.dtype == "float16") config.dtype = "float32";  // widened, nothing is lost
  read_tokens(reader, config);
  check_model_config(config, where);
  return config;
}

std::string model_config_json(const CausalLmConfig& config) {
  nlohmann::ordered_json json;
  for (const Known& one : kKnown)
    if (one.architecture == config.architecture) {
      json["architectures"] = {one.class_name};
      json["model_type"] = one.model_type;
    }
  json["vocab_size"] = config.vocab_size;
  json["hidden_size"] = config.hidden_size;
  json["intermediate_size"] = config.intermediate_size;
  json["num_hidden_layers"] = config.num_hidden_layers;
  json["num_attention_heads"] = config.num_attention_heads;
  json["num_key_value_heads"] = config.num_key_value_heads;
  json["head_dim"] = config.head_dim;
  json["hidden_act"] = "silu";
  json["max_position_embeddings"] = config.max_position_embeddings;
  json["rms_norm_eps"] = config.rms_norm_eps;
  json["initializer_range"] = config.initializer_range;
  json["tie_word_embeddings"] = config.tie_word_embeddings;
  if (config.architecture != LmArchitecture::kQwen2)
    json["attention_bias"] = config.attention_bias;
  if (config.architecture == LmArchitecture::kLlama) json["mlp_bias"] = config.mlp_bias;
  // the old keys: both generations of transformers read them
  json["rope_theta"] = config.rope_theta;
  if (config.rope_scaling)
    json["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", config.rope_scaling->factor},
                            {"low_freq_factor", config.rope_scaling->low_freq_factor},
                            {"high_freq_factor", config.rope_scaling->high_freq_factor},
                            {"original_max_position_embeddings",
                             config.rope_scaling->original_max_position_embeddings}};
  json["dtype"] = config.dtype;
  json["torch_dtype"] = config.dtype;  // its name before transformers 4.56
  const auto token = [&](const char* key, const std::optional<std::int64_t>& id) {
    json[key] = id ? nlohmann::ordered_json(*id) : nlohmann::ordered_json(nullptr);
  };
  token("bos_token_id", config.bos_token_id);
  token("pad_token_id", config.pad_token_id);
  if (config.eos_token_ids.size() == 1)
    json["eos_token_id"] = config.eos_token_ids[0];
  else if (config.eos_token_ids.empty())
    json["eos_token_id"] = nullptr;
  else
    json["eos_token_id"] = config.eos_token_ids;
  json["use_cache"] = true;
  return json.dump(2) + "\n";
}

}  // namespace pion::lab
