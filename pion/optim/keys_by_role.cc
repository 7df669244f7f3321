// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/keys_by_role.h"

#include <algorithm>
#include <set>
#include <stdexcept>

namespace pion {
namespace {

bool is_vector(Role role) {
  return role == Role::kNorm || role == Role::kBias || role == Role::kVector;
}

void set_rate(Routing& routing, const std::string& name, double lr) {
  const std::string where = "route: lr_by_role " + name;
  Role role;
  try {
    role = make_role(name);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument("route: lr_by_role: " + std::string(error.what()));
  }
  bool found = false;
  std::set<std::string> roles;
  for (Route& route : routing.routes) {
    roles.emplace(role_name(route.role));
    if (route.role != role) continue;
    set_learning_rate(route.rule, lr);
    check_rule(route.rule, where);
    route.keys_by_role.push_back("lr");
    found = true;
  }
  if (found) return;
  std::string present;
  for (const std::string& each : roles) present += " " + each;
  throw std::invalid_argument(where + " must be the role of a parameter, got none; " +
                              "roles of this model are:" + present);
}

}  // namespace

void set_keys_by_role(Routing& routing, const RoutingOptions& options) {
  std::set<std::string> named;
  for (const auto& [name, lr] : options.lr_by_role) {
    if (!named.insert(name).second)
      throw std::invalid_argument("route: lr_by_role must name a role once, got \"" +
                                  name + "\" twice");
    set_rate(routing, name, lr);
  }
  if (options.decay_vectors) return;
  for (Route& route : routing.routes) {
    if (!is_vector(route.role) || is_matrix_rule(route.rule)) continue;
    set_rule_key(route.rule, "weight_decay", 0.0);
    route.keys_by_role.push_back("weight_decay");
    route.reason += "; without decay";
  }
}

}  // namespace pion
