// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/parameter_name.h"

#include <algorithm>
#include <cctype>

namespace pion {
namespace {

bool is_wrapper(std::string_view part) {
  for (const std::string_view wrapper :
       {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
        "base_layer", "original_module", "parametrizations"}) {
    if (part == wrapper) return true;
  }
  return false;
}

// What a module calls its matrix; also under torch's weight and spectral norms.
bool is_weight(std::string_view part) {
  for (const std::string_view weight : {"weight", "kernel", "weight_v", "weight_orig",
                                        "original", "original0", "original1"}) {
    if (part == weight) return true;
  }
  return false;
}

// "3", "layer3", "block_3": one of a row of equal parts.
bool is_block(std::string_view part) {
  if (is_number(part)) return true;
  const bool named = part.starts_with("layer") || part.starts_with("block") ||
                     part.starts_with("stage") || part.starts_with("resblock");
  return named && std::isdigit(static_cast<unsigned char>(part.back())) != 0;
}

bool ends_with_bias(std::string_view part) {
  return part == "bias" || part.ends_with("_bias") || part.ends_with("bias_table") ||
         part.starts_with("bias_ih_") || part.starts_with("bias_hh_");
}

}  // namespace

bool is_number(std::string_view part) {
  return !part.empty() && std::all_of(part.begin(), part.end(), [](unsigned char c) {
    return std::isdigit(c) != 0;
  });
}

bool ParameterName::inside(std::initializer_list<std::string_view> words) const {
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    for (const std::string_view word : words) {
      if (parts[i].find(word) != std::string::npos) return true;
    }
  }
  return false;
}

ParameterName take_apart(std::string_view name) {
  ParameterName result;
  std::string part;
  bool copied = false;  // peft's trained copy: "lm_head.modules_to_save.<adapter>.weight"
  for (std::size_t i = 0; i <= name.size(); ++i) {
    if (i < name.size() && name[i] != '.' && name[i] != '/') {
      part += static_cast<char>(std::tolower(static_cast<unsigned char>(name[i])));
      continue;
    }
    const bool copy = part == "modules_to_save";
    if (!part.empty() && !is_wrapper(part) && !copy && !copied) {
      result.parts.push_back(part);
    }
    copied = copy;
    part.clear();
  }
  result.bias = !result.parts.empty() && ends_with_bias(result.parts.back());
  while (result.parts.size() > 1 &&
         (is_weight(result.parts.back()) || result.parts.back() == "bias")) {
    result.parts.pop_back();
  }
  for (std::size_t i = 0; i + 1 < result.parts.size(); ++i) {
    if (i > 0) result.prefix += '.';
    result.prefix += result.parts[i];
    result.in_block = result.in_block || is_block(result.parts[i]);
    result.parent = result.parts[i];
  }
  if (!result.parts.empty()) result.leaf = result.parts.back();
  return result;
}

std::string plain_module_type(std::string_view type) {
  if (const std::size_t colon = type.rfind(':'); colon != std::string_view::npos) {
    type.remove_prefix(colon + 1);
  }
  if (type.ends_with("Impl")) type.remove_suffix(4);
  return std::string(type);
}

}  // namespace pion
