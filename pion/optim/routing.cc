// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/routing.h"

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "pion/optim/attention_heads.h"
#include "pion/optim/glob.h"
#include "pion/optim/parameter_role.h"
#include "pion/optim/keys_by_role.h"
#include "pion/optim/routing_checks.h"

namespace pion {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument("route: " + what);
}

void check_options(const RoutingOptions& options) {
  check_rule(options.matrices, "route: matrices");
  check_rule(options.rest, "route: rest");
  if (is_matrix_rule(options.rest)) {
    refuse("rest must be an element-wise rule, \"adamw\" or \"sgd\", got \"" +
           std::string(rule_name(options.rest)) + "\"");
  }
  const auto check_counts = [](const AttentionShape& counts) {
    if (counts.heads < 0 || counts.kv_heads < 0 || counts.head_dim < 0) {
      refuse("attention counts must be positive, or 0 for unknown");
    }
  };
  check_counts(options.attention);
  for (const auto& [glob, counts] : options.attention_by_name) check_counts(counts);
}

// The user's decision for one name: the first override that matches.
const std::pair<std::string, std::string>* first_match(const RoutingOptions& options,
                                                       const std::string& name) {
  for (const auto& entry : options.overrides) {
    if (matches_glob(entry.first, name)) return &entry;
  }
  return nullptr;
}

const AttentionShape& counts_for(const RoutingOptions& options, const std::string& name) {
  for (const auto& [glob, counts] : options.attention_by_name) {
    if (matches_glob(glob, name)) return counts;
  }
  return options.attention;
}

template <class Entries>
void check_globs(const std::vector<ParameterDescription>& parameters,
                 const Entries& entries, const char* what) {
  for (const auto& [glob, unused] : entries) {
    const auto hit = [&glob = glob](const ParameterDescription& p) {
      return matches_glob(glob, p.name);
    };
    if (std::none_of(parameters.begin(), parameters.end(), hit)) {
      std::vector<std::string> names;
      for (const ParameterDescription& p : parameters) names.push_back(p.name);
      const std::string nearest = nearest_name(glob, names);
      refuse(std::string(what) + " \"" + glob + "\" must match a parameter, got none" +
             (nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?"));
    }
  }
}

Rule chosen_rule(const RoutingOptions& options, const std::string& choice) {
  if (choice == "matrix" || choice == rule_name(options.matrices))
    return options.matrices;
  if (choice == "rest" || choice == rule_name(options.rest)) return options.rest;
  std::vector<std::string> names = rule_names();
  if (std::find(names.begin(), names.end(), choice) != names.end())
    return make_rule(choice);
  names.insert(names.end(), {"matrix", "rest"});
  const std::string nearest = nearest_name(choice, names);
  refuse("an override must be \"matrix\", \"rest\" or a rule's name, got \"" + choice +
         "\"" + (nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?"));
}

// A matrix role for a parameter that the user wants orthogonalized.
Role matrix_role(const std::optional<Placement>& found, const ParameterDescription& p) {
  if (p.shape.size() < 2) {
    refuse(p.name + " must have two dimensions or more for a matrix rule, got " +
           shape_text(p.shape));
  }
  if (found && is_matrix_role(found->role)) return found->role;
  return p.shape.size() == 2 ? Role::kHiddenMatrix : Role::kConvolution;
}

HeadDecision layout_for(const RoutingOptions& options, const RoleFinder& finder,
                        std::size_t index, const ParameterDescription& p, Role role) {
  const bool transposed = finder.stored_in_out(index);
  switch (role) {
    case Role::kAttentionQ:
    case Role::kAttentionK:
    case Role::kAttentionV:
    case Role::kAttentionO:
    case Role::kAttentionFusedQkv:
      return attention_heads(
          {.name = p.name,
           .role = role,
           .rows = p.shape[0],
           .cols = p.shape[1],
           .transposed = transposed,
           .interleaved = p.name.find("query_key_value") != std::string::npos,
           .query_rows = finder.query_rows(index)},
          counts_for(options, p.name), options.per_head);
    case Role::kExpertStack:
      return {{.heads = {p.shape[0]}}, "one block per expert"};
    case Role::kHiddenMatrix:
      if (const std::int64_t gates = finder.recurrent_gates(index); gates > 1) {
        return {{.heads = {gates}}, std::to_string(gates) + " gates"};
      }
      break;
    default:
      break;
  }
  return {{.transposed = transposed}, transposed ? "stored (in, out)" : ""};
}

std::string unplaced_message(const std::vector<const ParameterDescription*>& unplaced) {
  std::string message = "every parameter must be placed, got " +
                        std::to_string(unplaced.size()) +
                        " that neither module type, name nor shape explain:\n";
  for (const ParameterDescription* p : unplaced) {
    message += "  " + p->name + "  " + shape_text(p->shape);
    if (!p->module_type.empty()) message += "  in " + p->module_type;
    message += "\n";
  }
  return message +
         "Decide each by an override, a glob on the name to \"matrix\" (orthogonalized), "
         "\"rest\" "
         "(input and output layers, tables) or a rule: {\"" +
         unplaced.front()->name +
         "\", \"matrix\"}; or write the decisions into a routing file "
         "(Routing::to_toml).";
}

}  // namespace

Routing route(const std::vector<ParameterDescription>& parameters,
              const RoutingOptions& options) {
  check_options(options);
  check_parameters(parameters, "route");
  check_globs(parameters, options.overrides, "override");
  check_globs(parameters, options.attention_by_name, "attention_by_name");
  const RoleFinder finder(parameters);
  Routing routing;
  std::vector<const ParameterDescription*> unplaced;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const ParameterDescription& p = parameters[i];
    const std::optional<Placement> found = finder.find(i);
    Route route{.parameter = p, .role = Role::kVector};
    if (const auto* override = first_match(options, p.name)) {
      route.rule = chosen_rule(options, override->second);
      const bool matrix = override->second == "matrix" || is_matrix_rule(route.rule);
      route.role = matrix ? matrix_role(found, p) : found ? found->role : Role::kVector;
      route.reason = "override " + override->first + " = " + override->second;
    } else if (found) {
      route.role = found->role;
      route.reason = found->reason;
      route.rule = is_matrix_role(found->role) ? options.matrices : options.rest;
    } else {
      unplaced.push_back(&p);
      continue;
    }
    if (is_matrix_rule(route.rule)) {
      HeadDecision heads = layout_for(options, finder, i, p, route.role);
      route.heads = std::move(heads.layout);
      if (!heads.reason.empty()) route.reason += "; " + heads.reason;
    }
    check_route(route, "route");
    routing.routes.push_back(std::move(route));
  }
  if (!unplaced.empty()) refuse(unplaced_message(unplaced));
  set_keys_by_role(routing, options);
  return routing;
}

void Routing::check_against(const std::vector<ParameterDescription>& parameters) const {
  std::map<std::string, const ParameterDescription*> wanted;
  for (const ParameterDescription& p : parameters) wanted[p.name] = &p;
  std::vector<std::string> names;
  for (const auto& [name, p] : wanted) names.push_back(name);
  std::string problems;
  for (const Route& route : routes) {
    const auto found = wanted.find(route.parameter.name);
    if (found == wanted.end()) {
      const std::string nearest = nearest_name(route.parameter.name, names);
      problems += "\n  " + route.parameter.name +
                  " is in the routing but not in the model" +
                  (nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
      continue;
    }
    if (found->second->shape != route.parameter.shape) {
      problems += "\n  " + route.parameter.name + " must have shape " +
                  shape_text(route.parameter.shape) + " as in the routing, got " +
                  shape_text(found->second->shape);
    }
    wanted.erase(found);
  }
  for (const auto& [name, p] : wanted) {
    problems += "\n  " + name + " " + shape_text(p->shape) +
                " is in the model but not in the routing";
  }
  if (!problems.empty()) {
    throw std::invalid_argument(
        "check_against: routing and model must agree, got:" + problems +
        "\nRoute the model again, or mend the routing file.");
  }
}

}  // namespace pion
