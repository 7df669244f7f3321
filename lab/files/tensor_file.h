// SPDX-License-Identifier: Apache-2.0
// Tensors to safetensors files and back.
#pragma once

#include <torch/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "lab/files/safetensors.h"

namespace torch::nn {
class Module;
}

namespace pion::lab {

using TensorMap = std::map<std::string, torch::Tensor>;

torch::ScalarType scalar_type(TensorType type);

// Writes and fsyncs; tensors are copied to the CPU. Throws std::invalid_argument for an
// element type without a name in the format, std::runtime_error if the disk is full.
void write_tensors(const std::filesystem::path& path, const TensorMap& tensors,
                   const std::map<std::string, std::string>& metadata = {});

// All tensors, or those that `wanted` says yes to; on the CPU, with their own memory.
// Throws std::invalid_argument with the path if the file is damaged or foreign.
TensorMap read_tensors(const std::filesystem::path& path,
                       const std::function<bool(const std::string&)>& wanted = {});
torch::Tensor read_tensor(const SafetensorsFile& file, const TensorRecord& record);

// Parameters and buffers by name; tied ones appear once, by their first name.
TensorMap module_tensors(torch::nn::Module& module);

// Copies into parameters and buffers. Checks every name, shape and type first and writes
// nothing if one is wrong; `where` begins the message.
void load_module_tensors(torch::nn::Module& module, const TensorMap& tensors,
                         const std::string& where);

}  // namespace pion::lab
