// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/route_module.h"

#include <c10/util/Type.h>

#include <map>
#include <set>
#include <typeinfo>
#include <utility>

#include "pion/torch/torch_error.h"

namespace pion {
namespace {

// "torch::nn::Conv2dImpl" to "Conv2d", "(anonymous namespace)::Block<4>" to "Block".
std::string type_name(const torch::nn::Module& module) {
  std::string name = c10::demangle(typeid(module).name());
  name = name.substr(0, name.find('<'));
  if (const auto colon = name.rfind("::"); colon != std::string::npos)
    name = name.substr(colon + 2);
  if (name.size() > 4 && name.ends_with("Impl")) name.resize(name.size() - 4);
  return name;
}

std::string dtype_name(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return "f32";
    case at::kDouble:
      return "f64";
    case at::kBFloat16:
      return "bf16";
    case at::kHalf:
      return "f16";
    default:
      return c10::toString(type);
  }
}

struct Named {
  std::string name;
  torch::Tensor tensor;
  std::string module_type;
};

void collect(const torch::nn::Module& module, const std::string& prefix,
             std::vector<Named>& all) {
  for (const auto& own : module.named_parameters(/*recurse=*/false)) {
    all.push_back({prefix + own.key(), own.value(), type_name(module)});
  }
  for (const auto& child : module.named_children()) {
    collect(*child.value(), prefix + child.key() + ".", all);
  }
}

// Where a tensor's memory begins: equal for tied parameters, also for a transposed view;
// not for parts of one flat buffer.
std::pair<const void*, std::int64_t> memory(const torch::Tensor& tensor) {
  return {tensor.storage().unsafeGetStorageImpl(), tensor.storage_offset()};
}

std::vector<Named> named_parameters(const torch::nn::Module& module) {
  std::vector<Named> all;
  collect(module, "", all);
  return all;
}

Fold fold_of(const Route& route) {
  if (route.role == Role::kExpertStack) return Fold::kStack;
  return route.parameter.shape.size() > 2 ? Fold::kConvolution : Fold::kAutomatic;
}

}  // namespace

std::vector<ParameterDescription> describe(const torch::nn::Module& module) {
  std::vector<ParameterDescription> descriptions;
  std::map<std::pair<const void*, std::int64_t>, std::string> seen;
  for (const Named& own : named_parameters(module)) {
    const auto [first, is_new] = seen.emplace(memory(own.tensor), own.name);
    descriptions.push_back({.name = own.name,
                            .shape = own.tensor.sizes().vec(),
                            .module_type = own.module_type,
                            .tied_to = is_new ? "" : first->second,
                            .dtype = dtype_name(own.tensor.scalar_type()),
                            .frozen = !own.tensor.requires_grad()});
  }
  return descriptions;
}

Routing route(const torch::nn::Module& module, const RoutingOptions& options) {
  return with_torch_errors([&] { return route(describe(module), options); });
}

std::unique_ptr<Optimizer> make_optimizer(const torch::nn::Module& module,
                                          const Routing& routing) {
  const std::vector<Named> parameters = named_parameters(module);
  with_torch_errors([&] { routing.check_against(describe(module)); });
  std::map<std::string, const Route*> by_name;
  for (const Route& one : routing.routes) by_name.emplace(one.parameter.name, &one);

  // parameters of equal options share a group, in the order of the first of each
  struct Group {
    std::unique_ptr<GroupOptions> options;
    std::vector<torch::Tensor> parameters;
  };
  std::vector<Group> groups;
  std::vector<std::pair<std::string, torch::Tensor>> names;
  std::set<std::pair<const void*, std::int64_t>> seen;
  for (const Named& own : parameters) {
    if (!seen.insert(memory(own.tensor)).second) continue;  // tied
    names.emplace_back(own.name, own.tensor);
    const Route& one = *by_name.at(own.name);
    std::unique_ptr<GroupOptions> options = make_options(one.rule);
    if (is_matrix_rule(one.rule)) {
      // the matrices of a stack are its blocks already
      const bool stack = one.role == Role::kExpertStack;
      options->set_layout(stack ? HeadLayout{.transposed = one.heads.transposed}
                                : one.heads);
      options->set_fold(fold_of(one));
    }
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const Group& g) { return *g.options == *options; });
    if (group == groups.end()) {
      groups.push_back({std::move(options), {}});
      group = groups.end() - 1;
    }
    group->parameters.push_back(own.tensor);
  }
  auto optimizer =
      std::make_unique<Optimizer>(std::vector<torch::optim::OptimizerParamGroup>{});
  optimizer->set_names(names);
  for (Group& group : groups) {
    optimizer->add_param_group({std::move(group.parameters), std::move(group.options)});
  }
  return optimizer;
}

std::unique_ptr<Optimizer> make_optimizer(const torch::nn::Module& module,
                                          const RoutingOptions& options) {
  return make_optimizer(module, route(module, options));
}

}  // namespace pion
