// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/routing.h"

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "pion/optim/attention_heads.h"
#include "pion/optim/glob.h"
#include "pion/optim/keys_by_role.h"
#include "pion/optim/parameter_role.h"
#include "pion/optim/part_names.h"
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
    if (counts.heads < 0 || counts.kv_heads < 0 || counts.head_dim < 0 ||
        counts.linear_key_heads < 0 || counts.linear_value_heads < 0) {
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

// How the user has a weight of more than two dimensions read.
struct ShapeChoice {
  std::string_view name;
  Role role;
  bool in_out;
};
constexpr ShapeChoice kShapeChoices[] = {{"stack", Role::kExpertStack, false},
                                         {"stack_in_out", Role::kExpertStack, true},
                                         {"convolution", Role::kConvolution, false}};

const ShapeChoice* shape_choice(const std::string& choice) {
  for (const ShapeChoice& known : kShapeChoices) {
    if (known.name == choice) return &known;
  }
  return nullptr;
}

Rule chosen_rule(const RoutingOptions& options, const std::string& choice) {
  if (choice == "matrix" || choice == rule_name(options.matrices) || shape_choice(choice))
    return options.matrices;
  if (choice == "rest" || choice == rule_name(options.rest)) return options.rest;
  std::vector<std::string> names = rule_names();
  if (std::find(names.begin(), names.end(), choice) != names.end())
    return make_rule(choice);
  names.insert(names.end(), {"matrix", "rest"});
  for (const ShapeChoice& known : kShapeChoices) names.emplace_back(known.name);
  const std::string nearest = nearest_name(choice, names);
  refuse(
      "an override must be \"matrix\", \"rest\", a rule's name, \"stack\", "
      "\"stack_in_out\" or \"convolution\", got \"" +
      choice + "\"" + (nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?"));
}

// A matrix role for a parameter that the user wants orthogonalized.
Role matrix_role(const std::optional<Placement>& found, const ParameterDescription& p,
                 const std::string& choice) {
  const ShapeChoice* shape = shape_choice(choice);
  if (p.shape.size() < (shape ? 3 : 2)) {
    refuse(p.name + " must have " + (shape ? "three" : "two") +
           " dimensions or more for " +
           (shape ? "\"" + choice + "\"" : std::string("a matrix rule")) + ", got " +
           shape_text(p.shape));
  }
  if (shape) return shape->role;
  if (found && is_matrix_role(found->role)) return found->role;
  if (p.shape.size() == 2) return Role::kHiddenMatrix;
  if (is_convolution_type(plain_module_type(p.module_type))) return Role::kConvolution;
  refuse(p.name + " of shape " + shape_text(p.shape) +
         " must be decided as a stack of matrices, \"stack\" or \"stack_in_out\", or as "
         "a \"convolution\", got \"" +
         choice + "\"");
}

std::int64_t matrices_in(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (std::size_t i = 0; i + 2 < shape.size(); ++i) count *= shape[i];
  return count;
}

// A stack whose orientation the scale depends on and nothing tells.
bool stack_in_doubt(const RoleFinder& finder, std::size_t index,
                    const ParameterDescription& p, const Route& route) {
  if (route.role != Role::kExpertStack || !is_matrix_rule(route.rule)) return false;
  const Scale scale = matrix_rule(route.rule)->scale;
  const auto n = p.shape.size();
  return (scale == Scale::kOriginal || scale == Scale::kSpectral) &&
         p.shape[n - 1] != p.shape[n - 2] && !finder.experts_in_out(index);
}

HeadDecision stack_layout(const RoleFinder& finder, std::size_t index,
                          const ParameterDescription& p, const std::string& choice) {
  const ShapeChoice* chosen = shape_choice(choice);
  const std::optional<bool> told = finder.experts_in_out(index);
  const bool in_out = chosen ? chosen->in_out : told.value_or(false);
  return {{.heads = {matrices_in(p.shape)}, .transposed = in_out},
          "one block per expert, stored " +
              std::string(in_out ? "(in, out)" : "(out, in)") +
              (chosen || told ? "" : " or (in, out)")};
}

HeadDecision layout_for(const RoutingOptions& options, const RoleFinder& finder,
                        std::size_t index, const ParameterDescription& p, Role role) {
  const bool transposed = finder.stored_in_out(index);
  AttentionShape counts = counts_for(options, p.name);
  if (finder.in_latent_attention(index)) counts.head_dim = 0;
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
           .linear = finder.in_linear_attention(index),
           .query_rows = finder.query_rows(index),
           .read = finder.output_inputs(index)},
          counts, options.per_head);
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

struct Unplaced {
  const ParameterDescription* parameter;
  std::string doubt;
};

std::string unplaced_message(const std::vector<Unplaced>& unplaced) {
  std::string message = "every parameter must be placed, got " +
                        std::to_string(unplaced.size()) +
                        " that neither module type, name nor shape explain:\n";
  for (const auto& [p, doubt] : unplaced) {
    message += "  " + p->name + "  " + shape_text(p->shape);
    if (!p->module_type.empty()) message += "  in " + p->module_type;
    message += (doubt.empty() ? "" : "  " + doubt) + "\n";
  }
  const ParameterDescription& first = *unplaced.front().parameter;
  return message +
         "Decide each by an override, a glob on the name to \"matrix\" (orthogonalized), "
         "\"rest\" (input and output layers, tables), a rule or, of three dimensions and "
         "more, \"stack\", \"stack_in_out\" or \"convolution\": {\"" +
         first.name + "\", \"" + (first.shape.size() > 2 ? "stack" : "matrix") +
         "\"}; or write the decisions into a routing file (Routing::to_toml).";
}

// The decision of the user, or of the finder; false if there is none.
bool decide(const RoutingOptions& options, const std::optional<Placement>& found,
            Route& route) {
  const ParameterDescription& p = route.parameter;
  if (const auto* override = first_match(options, p.name)) {
    const std::string& choice = override->second;
    route.rule = chosen_rule(options, choice);
    route.role = is_matrix_rule(route.rule) ? matrix_role(found, p, choice)
                 : found                    ? found->role
                                            : Role::kVector;
    route.reason = "override " + override->first + " = " + choice;
  } else if (found) {
    route.role = found->role;
    route.reason = found->reason;
    route.rule = is_matrix_role(found->role) ? options.matrices : options.rest;
  } else if (p.frozen) {  // what takes no step need not be placed
    route.rule = options.rest;
    route.reason = "not placed";
  } else {
    return false;
  }
  return true;
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
  std::vector<Unplaced> unplaced;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const ParameterDescription& p = parameters[i];
    Route route{.parameter = p, .role = Role::kVector};
    if (!decide(options, finder.find(i), route)) {
      unplaced.push_back({&p, finder.doubt(i)});
      continue;
    }
    const auto* override = first_match(options, p.name);
    const std::string choice = override ? override->second : "";
    if (!p.frozen && !shape_choice(choice) && stack_in_doubt(finder, i, p, route)) {
      unplaced.push_back(
          {&p, "stored (out, in) or (in, out): \"stack\", \"stack_in_out\""});
      continue;
    }
    if (is_matrix_rule(route.rule)) {
      HeadDecision heads = route.role == Role::kExpertStack
                               ? stack_layout(finder, i, p, choice)
                               : layout_for(options, finder, i, p, route.role);
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
