// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/routing_checks.h"

#include <algorithm>
#include <set>
#include <stdexcept>

namespace pion {
namespace {

struct RoleName {
  Role role;
  std::string_view name;
  bool matrix;
};
constexpr RoleName kRoles[] = {{Role::kHiddenMatrix, "hidden_matrix", true},
                               {Role::kAttentionQ, "attention_q", true},
                               {Role::kAttentionK, "attention_k", true},
                               {Role::kAttentionV, "attention_v", true},
                               {Role::kAttentionO, "attention_o", true},
                               {Role::kAttentionFusedQkv, "attention_fused_qkv", true},
                               {Role::kConvolution, "convolution", true},
                               {Role::kExpertStack, "expert_stack", true},
                               {Role::kEmbedding, "embedding", false},
                               {Role::kHead, "head", false},
                               {Role::kNorm, "norm", false},
                               {Role::kBias, "bias", false},
                               {Role::kVector, "vector", false},
                               {Role::kRouter, "router", false},
                               {Role::kAdapterA, "adapter_a", false}};

const RoleName& entry(Role role) {
  return *std::find_if(std::begin(kRoles), std::end(kRoles),
                       [role](const RoleName& r) { return r.role == role; });
}

}  // namespace

std::string_view role_name(Role role) { return entry(role).name; }
bool is_matrix_role(Role role) { return entry(role).matrix; }

std::vector<std::string> role_names() {
  std::vector<std::string> names;
  for (const RoleName& role : kRoles) names.emplace_back(role.name);
  return names;
}

Role make_role(std::string_view name) {
  for (const RoleName& role : kRoles) {
    if (role.name == name) return role.role;
  }
  const std::string nearest = nearest_name(name, role_names());
  throw std::invalid_argument(
      "make_role: unknown role \"" + std::string(name) + "\"" +
      (nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?"));
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

void check_parameter(const ParameterDescription& p, std::string_view where) {
  const std::string begin = std::string(where) + ": ";
  if (p.name.empty())
    throw std::invalid_argument(begin + "a parameter must have a name, got \"\"");
  constexpr std::int64_t kMost = std::int64_t{1}
                                 << 48;  // entries; more than any machine holds
  std::int64_t entries = 1;
  for (const std::int64_t n : p.shape) {
    if (n < 0 || (n > 0 && entries > kMost / n)) {
      throw std::invalid_argument(begin + p.name +
                                  " must have dimensions >= 0 and at most 2^48 " +
                                  "entries, got " + shape_text(p.shape));
    }
    entries *= std::max<std::int64_t>(n, 1);
  }
}

void check_parameters(const std::vector<ParameterDescription>& parameters,
                      std::string_view where) {
  std::set<std::string> names;
  for (const ParameterDescription& p : parameters) {
    check_parameter(p, where);
    if (!names.insert(p.name).second) {
      throw std::invalid_argument(std::string(where) + ": names must differ, got " +
                                  p.name + " twice");
    }
  }
}

FoldedShape folded_shape(const std::vector<std::int64_t>& shape, Role role) {
  if (shape.size() < 2) {
    throw std::invalid_argument(
        "folded_shape: a matrix must have two dimensions or more, got " +
        shape_text(shape));
  }
  // a stack keeps its last dimension, everything else its first
  const bool stack = role == Role::kExpertStack;
  std::int64_t rest = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i)
    rest *= stack ? shape[i] : shape[i + 1];
  return stack ? FoldedShape{rest, shape.back()} : FoldedShape{shape.front(), rest};
}

void check_route(const Route& route, std::string_view where) {
  check_rule(route.rule, std::string(where) + ": " + route.parameter.name);
  if (!is_matrix_rule(route.rule)) return;
  try {
    const FoldedShape folded = folded_shape(route.parameter.shape, route.role);
    if (folded.rows > 0 && folded.cols > 0) {
      check_head_layout(route.heads, folded.rows, folded.cols);
    }
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string(where) + ": " + route.parameter.name + ": " +
                                error.what());
  }
}

}  // namespace pion
