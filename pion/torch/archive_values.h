// SPDX-License-Identifier: Apache-2.0
// Typed reads from a LibTorch archive, which may be a file of anything. Each throws
// c10::Error that names the key if it is missing or has another type.
#pragma once

#include <torch/serialize/archive.h>

#include <cstdint>
#include <string>
#include <vector>

namespace pion {

torch::IValue read_value(torch::serialize::InputArchive& archive, const std::string& key);
std::string read_text(torch::serialize::InputArchive& archive, const std::string& key);
bool read_flag(torch::serialize::InputArchive& archive, const std::string& key);
double read_number(torch::serialize::InputArchive& archive, const std::string& key);
std::int64_t read_integer(torch::serialize::InputArchive& archive, const std::string& key,
                          std::int64_t min, std::int64_t max);
std::vector<std::int64_t> read_integers(torch::serialize::InputArchive& archive,
                                        const std::string& key);

}  // namespace pion
