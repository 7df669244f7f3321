// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <stdexcept>

#include "pion/optim/parameter_name.h"
#include "pion/optim/routing.h"
#include "pion/optim/routing_checks.h"

namespace pion {
namespace {

// The authors' reinforcement-learning classes: scale 5, Nesterov off, no promotion, lr
// 1e-6.
Routing paper_rlvr(const std::vector<ParameterDescription>& parameters,
                   RoutingOptions options) {
  PionRule pion;
  pion.lr = 1e-6;
  pion.weight_decay = 0.01;
  pion.scale = Scale::kOfficial;
  pion.scale_factor = 5.0;
  pion.promotion_steps = 0;
  options.matrices = pion;
  options.rest = AdamWRule{.lr = 1e-6, .weight_decay = 0.01};
  return route(parameters, options);
}

// "action_head", "action_expert", "gemma_expert", "lm_expert", "dit" (transformers' PI0),
// and pi_0.5's time_mlp_in and time_mlp_out; neither a mixture's "experts" nor the model
// that holds both towers ("paligemma_with_expert", "vlm_with_expert").
bool in_action_module(const ParameterName& name) {
  for (const std::string& part : name.parts) {
    const bool expert =
        part == "expert" || (part.ends_with("_expert") &&
                             !part.ends_with("_with_expert") && part != "shared_expert");
    if (expert || part == "dit" || part.starts_with("action") ||
        part.find("_action") != std::string::npos || part.starts_with("time_mlp") ||
        part == "state_proj") {
      return true;
    }
  }
  return false;
}

// Layers that read states and noisy actions: input layers elsewhere, matrices of the
// action module to the preset's authors.
bool reads_actions(const Route& r, const ParameterName& name) {
  return r.role == Role::kEmbedding && r.parameter.shape.size() == 2 &&
         (name.leaf == "action_in_proj" || name.leaf == "state_proj");
}

// The recipe of the authors' VLA-Adapter and VLANeXt trainers: scale 0.2, one rate, and
// Nesterov on, which their classes default to and the trainers leave alone. Their openpi
// trainer differs: scale 2.0, Nesterov off, lr 2.5e-5.
Routing paper_vla(const std::vector<ParameterDescription>& parameters,
                  RoutingOptions options) {
  MuonRule muon;
  muon.lr = 1e-4;
  muon.weight_decay = 1e-2;
  muon.scale = Scale::kOfficial;
  muon.scale_factor = 0.2;
  PionRule pion;
  static_cast<MatrixRule&>(pion) = muon;  // Nesterov too
  pion.promotion_steps = 0;
  options.matrices = muon;
  options.rest = AdamWRule{.lr = 1e-4, .weight_decay = 1e-2};
  Routing routing = route(parameters, options);
  bool found = false;
  for (Route& r : routing.routes) {
    const ParameterName name = take_apart(r.parameter.name);
    const bool decided = r.reason.starts_with("override ");
    if (decided || !in_action_module(name)) continue;
    if (reads_actions(r, name)) {
      r.role = Role::kHiddenMatrix;
    } else if (!is_matrix_rule(r.rule)) {
      continue;
    }
    PionRule own = pion;
    if (is_matrix_rule(r.rule)) own.lr = learning_rate(r.rule);  // its role's, if given
    r.rule = own;
    r.reason += "; action module";
    found = true;
  }
  if (!found) {
    throw std::invalid_argument(
        "route_preset: \"paper-vla\" must find matrices of an action module (a part of "
        "the name with \"action\", ending in \"expert\", or \"dit\"), got none; take "
        "\"field-notes\" for Muon alone, or name the module by overrides");
  }
  return routing;
}

Routing field_notes(const std::vector<ParameterDescription>& parameters,
                    RoutingOptions options) {
  MuonRule muon;
  muon.lr = 1e-5;
  options.matrices = muon;
  options.rest = SgdRule{.lr = 1e-5, .momentum = 0.9};
  return route(parameters, options);
}

// By shape alone, as optax.contrib.muon does for the policies of PureJaxRL.
Routing purejaxrl(const std::vector<ParameterDescription>& parameters,
                  RoutingOptions options) {
  MuonRule muon;
  muon.lr = 0.02;
  muon.scale = Scale::kOriginal;
  options.matrices = muon;
  options.rest = AdamWRule{.lr = 2.5e-4, .eps = 1e-5};
  const std::size_t decided = options.overrides.size();
  for (const ParameterDescription& p : parameters) {
    options.overrides.emplace_back(p.name, p.shape.size() >= 2 ? "matrix" : "rest");
  }
  Routing routing = route(parameters, options);
  for (Route& r : routing.routes) {
    const auto named = [&](const auto& o) {
      return r.reason.starts_with("override " + o.first + " ");
    };
    if (std::none_of(options.overrides.begin(),
                     options.overrides.begin() + static_cast<std::ptrdiff_t>(decided),
                     named)) {
      r.reason = std::to_string(r.parameter.shape.size()) + " dimensions";
      if (r.role != Role::kExpertStack) r.heads = {};
    }
  }
  return routing;
}

struct Entry {
  Preset preset;
  Routing (*make)(const std::vector<ParameterDescription>&, RoutingOptions);
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> all = {
      {{"paper-rlvr", "arXiv:2605.19282, OPTML-Group/Pion RL recipe",
        "per-head Pion on attention, Pion on MLP, AdamW on embedding, head and vectors; "
        "lr 1e-6, scale 5, promotion_steps 0"},
       paper_rlvr},
      {{"paper-vla", "arXiv:2605.19282, OPTML-Group/Pion VLA recipe",
        "Muon on vision, language and connectors, Pion on the action module, AdamW on "
        "the rest; lr 1e-4, scale 0.2, Nesterov on, weight decay 0.01, as its "
        "VLA-Adapter has it"},
       paper_vla},
      {{"field-notes", "practitioners' notes on reinforcement learning with Muon",
        "Muon on hidden matrices, SGD with momentum on embeddings and the rest; lr 1e-5"},
       field_notes},
      {{"purejaxrl", "PureJaxRL with optax.contrib.muon",
        "Muon on everything of two dimensions or more (lr 0.02, scale original), Adam on "
        "the rest (lr 2.5e-4, eps 1e-5); clip gradients by their global norm first"},
       purejaxrl}};
  return all;
}

bool same_rule(const Rule& a, const Rule& b) {
  if (a.index() != b.index()) return false;
  const std::vector<RuleKey> x = rule_keys(a), y = rule_keys(b);
  return std::equal(
      x.begin(), x.end(), y.begin(),
      [](const RuleKey& l, const RuleKey& r) { return l.value == r.value; });
}

}  // namespace

std::vector<Preset> presets() {
  std::vector<Preset> all;
  for (const Entry& entry : entries()) all.push_back(entry.preset);
  return all;
}

Routing route_preset(const std::vector<ParameterDescription>& parameters,
                     std::string_view preset, const RoutingOptions& options) {
  const RoutingOptions defaults;
  if (!same_rule(options.matrices, defaults.matrices) ||
      !same_rule(options.rest, defaults.rest)) {
    throw std::invalid_argument(
        "route_preset: matrices and rest must be left at their defaults, the preset sets "
        "them; change the rules of the routes afterwards, or call route()");
  }
  std::vector<std::string> names;
  for (const Entry& entry : entries()) {
    if (entry.preset.name == preset) return entry.make(parameters, options);
    names.push_back(entry.preset.name);
  }
  const std::string nearest = nearest_name(preset, names);
  std::string message = "route_preset: unknown preset \"" + std::string(preset) + "\"";
  if (!nearest.empty()) message += "; did you mean \"" + nearest + "\"?";
  message += " Presets are:";
  for (const std::string& name : names) message += " " + name;
  throw std::invalid_argument(message);
}

}  // namespace pion
