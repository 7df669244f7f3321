// SPDX-License-Identifier: Apache-2.0
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "pion/optim/json_parser.h"
#include "pion/optim/routing.h"

namespace pion {
namespace {

using Json = nlohmann::json;
constexpr const char* kConfigWhere = "attention_shape_from_config: ";

// The first of the keys that is there and not null; 0 if none is.
std::int64_t count(const Json& config, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null()) continue;
    constexpr std::int64_t kMost = 1
                                   << 24;  // no network is wider; keeps products in range
    const bool integer = found->is_number_integer() || found->is_number_unsigned();
    if (!integer || *found < 1 || *found > kMost) {
      throw std::invalid_argument(
          std::string(kConfigWhere) + key + " must be an integer in [1, " +
          std::to_string(kMost) + "], got " +
          (found->is_number() ? found->dump() : found->type_name()));
    }
    return found->get<std::int64_t>();
  }
  return 0;
}

}  // namespace

AttentionShape attention_shape_from_config(std::string_view json) {
  Json config;
  try {
    config = parse_json<Json>(json);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string(kConfigWhere) + "the text " + error.what());
  }
  if (!config.is_object()) {
    throw std::invalid_argument(std::string(kConfigWhere) +
                                "the text must be a JSON object, got " +
                                config.type_name());
  }
  for (const char* nested : {"text_config", "llm_config", "language_config"}) {
    const auto found = config.find(nested);
    if (found != config.end() && found->is_object()) {
      Json inner = *found;  // copied out first: it is a part of what it replaces
      config = std::move(inner);
      break;
    }
  }
  AttentionShape shape;
  shape.heads = count(config, {"num_attention_heads", "n_head", "n_heads", "num_heads"});
  shape.kv_heads =
      count(config, {"num_key_value_heads", "n_kv_heads", "num_kv_heads", "n_head_kv"});
  shape.head_dim = count(config, {"head_dim", "kv_channels", "d_kv"});
  const std::int64_t width = count(config, {"hidden_size", "n_embd", "d_model", "dim"});
  shape.linear_key_heads = count(config, {"linear_num_key_heads", "linear_num_heads"});
  shape.linear_value_heads =
      count(config, {"linear_num_value_heads", "linear_num_heads"});
  const auto linear = config.find("linear_attn_config");  // Kimi Linear's own files
  if (shape.linear_key_heads == 0 && linear != config.end() && linear->is_object()) {
    shape.linear_key_heads = shape.linear_value_heads = count(*linear, {"num_heads"});
  }
  const auto multi_query = config.find("multi_query");
  if (shape.heads == 0) return {};
  if (shape.kv_heads == 0) {
    const bool one = multi_query != config.end() && multi_query->is_boolean() &&
                     multi_query->get<bool>();
    shape.kv_heads = one ? 1 : shape.heads;
  }
  if (shape.heads % shape.kv_heads != 0) {
    throw std::invalid_argument(
        std::string(kConfigWhere) + "kv_heads must divide heads, " +
        std::to_string(shape.heads) + ", got " + std::to_string(shape.kv_heads));
  }
  if (shape.head_dim == 0 && width != 0) {
    if (width % shape.heads != 0) {
      throw std::invalid_argument(std::string(kConfigWhere) +
                                  "heads must divide the width " + std::to_string(width) +
                                  ", got " + std::to_string(shape.heads));
    }
    shape.head_dim = width / shape.heads;
  }
  return shape;
}

}  // namespace pion
