// SPDX-License-Identifier: Apache-2.0
// Optimizer::save, load, state_tensors, load_state_tensors. Everything is read and
// checked before the optimizer changes.
#include <ATen/ATen.h>
#include <torch/serialize/archive.h>

#include <cmath>
#include <limits>

#include "pion/torch/archive_values.h"
#include "pion/torch/optimizer_data.h"
#include "pion/torch/state_fields.h"

namespace pion {
namespace {

using torch::serialize::InputArchive;
using torch::serialize::OutputArchive;
using Fields = std::map<std::string, torch::Tensor>;

constexpr const char* kFormat = "pion.optimizer";
constexpr std::int64_t kVersion = 1;
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

std::string key(const char* what, std::size_t group) {
  return std::string(what) + "/" + std::to_string(group);
}
std::string key(const char* what, std::size_t group, std::size_t index) {
  return key(what, group) + "/" + std::to_string(index);
}

void check_format(InputArchive& archive) {
  torch::IValue format;
  TORCH_CHECK(archive.try_read("format", format) && format.isString() &&
                  format.toStringRef() == kFormat,
              "load: the file must hold a pion optimizer, got another archive; models "
              "are loaded ",
              "into modules, other optimizers into their own classes");
  const std::int64_t version = read_integer(archive, "version", 0, kMost);
  TORCH_CHECK(version == kVersion, "load: the file's format version must be ", kVersion,
              ", got ", version, "; load it with the pion that saved it");
}

Fields read_fields(InputArchive& archive) {
  Fields fields;
  for (const std::string& name : archive.keys()) {
    torch::Tensor tensor;
    TORCH_CHECK(archive.try_read(name, tensor, /*is_buffer=*/true),
                "load: the state entry ", name, " must be a tensor, got something else");
    fields.emplace(name, tensor);
  }
  return fields;
}

}  // namespace

void Optimizer::save(OutputArchive& archive) const {
  archive.write("format", torch::IValue(std::string(kFormat)));
  archive.write("version", torch::IValue(kVersion));
  archive.write("lr_factor", torch::IValue(data_->lr_factor));
  archive.write("seed", torch::IValue(static_cast<std::int64_t>(data_->seed)));
  archive.write("groups", torch::IValue(static_cast<std::int64_t>(param_groups_.size())));
  for (std::size_t g = 0; g < param_groups_.size(); ++g) {
    OutputArchive options(archive.compilation_unit());
    param_groups_[g].options().serialize(options);
    archive.write(key("options", g), options);
    const auto& parameters = param_groups_[g].params();
    archive.write(key("parameters", g),
                  torch::IValue(static_cast<std::int64_t>(parameters.size())));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      archive.write(key("shape", g, i), torch::IValue(parameters[i].sizes().vec()));
      if (const std::string* given = data_->given_name(parameters[i]))
        archive.write(key("name", g, i), torch::IValue(*given));
      const auto state = state_.find(parameters[i].unsafeGetTensorImpl());
      if (state == state_.end()) continue;
      OutputArchive own(archive.compilation_unit());
      for (const auto& [name, tensor] :
           state_fields(static_cast<const ParameterState&>(*state->second))) {
        own.write(name, tensor, /*is_buffer=*/true);
      }
      archive.write(key("state", g, i), own);
    }
  }
}

void Optimizer::load(InputArchive& archive) {
  check_format(archive);
  const double lr_factor = read_number(archive, "lr_factor");
  const std::int64_t seed =
      read_integer(archive, "seed", std::numeric_limits<std::int64_t>::min(), kMost);
  const std::int64_t groups = read_integer(archive, "groups", 0, kMost);
  TORCH_CHECK(std::isfinite(lr_factor) && lr_factor >= 0,
              "load: lr_factor must be >= 0, got ", lr_factor);
  TORCH_CHECK(groups == static_cast<std::int64_t>(param_groups_.size()),
              "load: the file must have the optimizer's number of groups, ",
              param_groups_.size(), ", got ", groups);

  std::vector<std::unique_ptr<torch::optim::OptimizerOptions>> options;
  ska::flat_hash_map<void*, std::unique_ptr<torch::optim::OptimizerParamState>> states;
  for (std::size_t g = 0; g < param_groups_.size(); ++g) {
    InputArchive own;
    TORCH_CHECK(archive.try_read(key("options", g), own),
                "load: the file must hold the options ", "of group ", g, ", got none");
    options.push_back(param_groups_[g].options().clone());
    options.back()->serialize(own);
    const auto& parameters = param_groups_[g].params();
    const std::int64_t count = read_integer(archive, key("parameters", g), 0, kMost);
    TORCH_CHECK(count == static_cast<std::int64_t>(parameters.size()), "load: group ", g,
                " must have ", parameters.size(), " parameters, got ", count);
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const std::string name = data_->name(parameters[i], g, i);
      const auto shape = read_integers(archive, key("shape", g, i));
      TORCH_CHECK(parameters[i].sizes() == at::IntArrayRef(shape), "load: ", name,
                  " must have shape ", parameters[i].sizes(), ", got ",
                  at::IntArrayRef(shape));
      torch::IValue saved;  // names are there where set_names gave them
      const bool named = archive.try_read(key("name", g, i), saved) && saved.isString();
      TORCH_CHECK(!named || data_->given_name(parameters[i]) == nullptr ||
                      saved.toStringRef() == name,
                  "load: parameter ", i, " of group ", g, " must be ",
                  named ? saved.toStringRef() : name, " as in the file, got ", name,
                  "; groups must have the same parameters in the same order");
      InputArchive state;
      if (!archive.try_read(key("state", g, i), state)) continue;
      states[parameters[i].unsafeGetTensorImpl()] =
          state_from_fields(read_fields(state), parameters[i],
                            static_cast<const GroupOptions&>(*options.back()), name);
    }
  }

  for (std::size_t g = 0; g < options.size(); ++g) {
    param_groups_[g].set_options(std::move(options[g]));
  }
  state_ = std::move(states);
  data_->lr_factor = lr_factor;
  data_->seed = static_cast<std::uint64_t>(seed);
}

std::map<std::string, torch::Tensor> Optimizer::state_tensors() const {
  Fields all;
  all.emplace("optimizer.seed",
              at::scalar_tensor(static_cast<std::int64_t>(data_->seed), at::kLong));
  for (std::size_t g = 0; g < param_groups_.size(); ++g) {
    const auto& parameters = param_groups_[g].params();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const auto state = state_.find(parameters[i].unsafeGetTensorImpl());
      if (state == state_.end()) continue;
      const std::string name = data_->name(parameters[i], g, i);
      for (auto& [field, tensor] :
           state_fields(static_cast<const ParameterState&>(*state->second))) {
        TORCH_CHECK(all.emplace(name + "." + field, tensor).second,
                    "state_tensors: parameters must have names of their own, got ", name,
                    " twice");
      }
    }
  }
  return all;
}

void Optimizer::load_state_tensors(const std::map<std::string, torch::Tensor>& tensors) {
  const auto seed = tensors.find("optimizer.seed");
  TORCH_CHECK(seed != tensors.end() && seed->second.defined() &&
                  seed->second.numel() == 1 && seed->second.scalar_type() == at::kLong,
              "load_state_tensors: optimizer.seed must be one int64, got none; the "
              "tensors are no ",
              "state of a pion optimizer");
  // a name is a parameter's name, a dot and a field
  std::map<std::string, Fields> by_parameter;
  for (const auto& [name, tensor] : tensors) {
    if (name == "optimizer.seed") continue;
    const std::size_t dot = name.rfind('.');
    TORCH_CHECK(dot != std::string::npos, "load_state_tensors: a name must be ",
                "\"<parameter>.<field>\", got \"", name, "\"");
    by_parameter[name.substr(0, dot)].emplace(name.substr(dot + 1), tensor);
  }
  ska::flat_hash_map<void*, std::unique_ptr<torch::optim::OptimizerParamState>> states;
  for (std::size_t g = 0; g < param_groups_.size(); ++g) {
    const auto& options = static_cast<const GroupOptions&>(param_groups_[g].options());
    const auto& parameters = param_groups_[g].params();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const std::string name = data_->name(parameters[i], g, i);
      const auto fields = by_parameter.find(name);
      if (fields == by_parameter.end()) continue;
      states[parameters[i].unsafeGetTensorImpl()] =
          state_from_fields(fields->second, parameters[i], options, name);
      by_parameter.erase(fields);
    }
  }
  TORCH_CHECK(by_parameter.empty(),
              "load_state_tensors: every name must belong to a parameter of ",
              "the optimizer, got ", by_parameter.begin()->first);
  state_ = std::move(states);
  data_->seed = static_cast<std::uint64_t>(seed->second.item<std::int64_t>());
}

}  // namespace pion
