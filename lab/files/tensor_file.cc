// SPDX-License-Identifier: Apache-2.0
#include "lab/files/tensor_file.h"

#include <torch/torch.h>

#include <set>
#include <stdexcept>
#include <utility>

namespace pion::lab {
namespace {

constexpr std::pair<TensorType, torch::ScalarType> kTypes[] = {
    {TensorType::kBool, torch::kBool},   {TensorType::kU8, torch::kUInt8},
    {TensorType::kI32, torch::kInt32},   {TensorType::kI64, torch::kInt64},
    {TensorType::kF16, torch::kFloat16}, {TensorType::kBF16, torch::kBFloat16},
    {TensorType::kF32, torch::kFloat32}, {TensorType::kF64, torch::kFloat64}};

TensorType tensor_type(torch::ScalarType type, const std::string& name) {
  for (const auto& [stored, own] : kTypes)
    if (own == type) return stored;
  throw std::invalid_argument(
      "write_tensors: tensor \"" + name +
      "\" must be bool, u8, i32, i64, f16, bf16, f32 or f64, got " +
      torch::toString(type));
}

std::string shape_text(torch::IntArrayRef shape) {
  std::string text = "[";
  for (const std::int64_t size : shape)
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

}  // namespace

torch::ScalarType scalar_type(TensorType type) {
  for (const auto& [stored, own] : kTypes)
    if (stored == type) return own;
  throw std::invalid_argument("scalar_type: must be a type that is read, got another");
}

void write_tensors(const std::filesystem::path& path, const TensorMap& tensors,
                   const std::map<std::string, std::string>& metadata) {
  std::vector<torch::Tensor> kept;  // owns the copies that `rows` points into
  std::vector<TensorBytes> rows;
  for (const auto& [name, tensor] : tensors) {
    const torch::Tensor plain = tensor.detach().to(torch::kCPU).contiguous();
    kept.push_back(plain);
    const auto* data = static_cast<const std::byte*>(plain.const_data_ptr());
    rows.push_back({name,
                    tensor_type(plain.scalar_type(), name),
                    plain.sizes().vec(),
                    {data, plain.nbytes()}});
  }
  write_safetensors(path, std::move(rows), metadata);
}

torch::Tensor read_tensor(const SafetensorsFile& file, const TensorRecord& record) {
  if (record.type == TensorType::kOther)
    throw std::invalid_argument(file.path().string() + ": a tensor is of type " +
                                record.tag + ", which is not read");
  torch::Tensor tensor = torch::empty(record.shape, scalar_type(record.type));
  file.read(record,
            {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()});
  if (record.type == TensorType::kBool) {
    // a byte that is neither 0 nor 1 is no bool: reading it as one is undefined
    const auto* bytes = static_cast<const std::uint8_t*>(tensor.const_data_ptr());
    for (std::size_t i = 0; i < tensor.nbytes(); ++i)
      if (bytes[i] > 1)
        throw std::invalid_argument(file.path().string() + ": a BOOL tensor holds " +
                                    std::to_string(bytes[i]));
  }
  return tensor;
}

TensorMap read_tensors(const std::filesystem::path& path,
                       const std::function<bool(const std::string&)>& wanted) {
  const SafetensorsFile file(path);
  TensorMap tensors;
  for (const auto& [name, record] : file.header().tensors)
    if (!wanted || wanted(name)) tensors.emplace(name, read_tensor(file, record));
  return tensors;
}

TensorMap module_tensors(torch::nn::Module& module) {
  TensorMap tensors;
  std::set<const void*> seen;
  for (const auto& item : module.named_parameters())
    if (seen.insert(item.value().unsafeGetTensorImpl()).second)
      tensors.emplace(item.key(), item.value());
  for (const auto& item : module.named_buffers())
    tensors.emplace(item.key(), item.value());
  return tensors;
}

void load_module_tensors(torch::nn::Module& module, const TensorMap& tensors,
                         const std::string& where) {
  const TensorMap own = module_tensors(module);
  for (const auto& [name, tensor] : own) {
    const auto at = tensors.find(name);
    if (at == tensors.end())
      throw std::invalid_argument(where + ": lacks tensor \"" + name +
                                  "\" of this model; it is of another model");
    if (at->second.sizes() != tensor.sizes() ||
        at->second.scalar_type() != tensor.scalar_type())
      throw std::invalid_argument(
          where + ": tensor \"" + name + "\" must be " +
          torch::toString(tensor.scalar_type()) + " " + shape_text(tensor.sizes()) +
          ", got " + torch::toString(at->second.scalar_type()) + " " +
          shape_text(at->second.sizes()) + "; it is of another model");
  }
  for (const auto& [name, tensor] : tensors)
    if (!own.contains(name))
      throw std::invalid_argument(where + ": tensor \"" + name +
                                  "\" is not of this model");
  const torch::NoGradGuard no_gradients;
  for (const auto& [name, tensor] : own) torch::Tensor(tensor).copy_(tensors.at(name));
}

}  // namespace pion::lab
