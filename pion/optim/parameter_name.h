// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace pion {

// "model.layers.3.self_attn.q_proj.weight" taken apart: what routing looks at. Lower
// case; wrappers ("module", "_orig_mod", "base_layer", ...) and the trailing "weight" are
// left out.
struct ParameterName {
  std::vector<std::string> parts;  // model, layers, 3, self_attn, q_proj
  std::string leaf;                // q_proj
  std::string parent;              // self_attn; "" at the top
  std::string prefix;              // model.layers.3.self_attn
  bool bias = false;               // it is a bias
  bool in_block = false;  // a part before the leaf is a number or "layer3", "block_3"

  // A part before the leaf that contains one of the words.
  bool inside(std::initializer_list<std::string_view> words) const;
};

ParameterName take_apart(std::string_view name);
bool is_number(std::string_view part);

// "torch::nn::LinearImpl" and "Linear" are both "Linear".
std::string plain_module_type(std::string_view type);

}  // namespace pion
