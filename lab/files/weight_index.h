// SPDX-License-Identifier: Apache-2.0
// model.safetensors.index.json: which file of a folder holds which tensor.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pion::lab {

// The names of the shards, sorted, each once. Throws std::invalid_argument, which begins
// with `where`: no JSON object with weight_map, or an entry that is no name of a file
// beside the index.
std::vector<std::string> parse_weight_index(std::string_view json,
                                            const std::string& where);

}  // namespace pion::lab
