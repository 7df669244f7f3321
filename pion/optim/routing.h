// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "pion/optim/matrix_step.h"
#include "pion/optim/rule.h"

namespace pion {

// What routing knows of one parameter.
struct ParameterDescription {
  std::string name;                 // "layers.0.attention.q_proj.weight"
  std::vector<std::int64_t> shape;  // as stored
  std::string module_type;  // "Linear", "Embedding", "LayerNorm", ...; "" if unknown
  std::string tied_to;      // name of an earlier parameter with the same storage, or ""
  std::string dtype;        // "f32", "bf16", ...; for the table only
};

enum class Role {
  kHiddenMatrix,  // takes the matrix rule
  kAttentionQ, kAttentionK, kAttentionV, kAttentionO, kAttentionFusedQkv,  // the same, per head
  kConvolution,   // folds to (out, rest)
  kExpertStack,   // (experts, out, in): a matrix each
  kEmbedding, kHead, kNorm, kBias, kVector, kRouter,  // take the auxiliary rule
};
std::string_view role_name(Role role);

// Counts of a transformer; 0 means unknown: projections are then taken whole, and say so.
struct AttentionShape {
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
};
// From a Hugging Face config.json's text. Throws on malformed JSON.
AttentionShape attention_shape_from_config(std::string_view json);

struct Route {
  ParameterDescription parameter;
  Role role;
  Rule rule;
  HeadLayout heads;    // matrix rules only
  std::string reason;  // why this role: "module Linear, name q_proj"
};

struct RoutingOptions {
  Rule matrices = PionRule{};  // for hidden matrices
  Rule rest = AdamWRule{};     // for everything else
  bool per_head = true;        // attention projections, where counts are known
  AttentionShape attention;
  // Decisions of the user, first match wins: a glob on the name ("*.proj.weight") to "matrix",
  // "rest" or a rule name.
  std::vector<std::pair<std::string, std::string>> overrides;
};

struct Routing {
  std::vector<Route> routes;

  std::string table() const;    // name, shape, role, rule, heads, scale, lr; aligned columns
  std::string to_toml() const;  // complete; edited by hand and read back
  // Throws std::invalid_argument with line and column for malformed TOML, unknown keys (nearest
  // right one), unknown rules.
  static Routing from_toml(std::string_view text);
  // Checks that routes and parameters match by name and shape; names what is missing or extra.
  void check_against(const std::vector<ParameterDescription>& parameters) const;
};

// Decides by module type, name, ties and shape. Throws std::invalid_argument that lists every
// parameter that it cannot place (an unknown 2-D parameter) and how to decide it.
Routing route(const std::vector<ParameterDescription>& parameters, const RoutingOptions& options);

// Presets with their source: "paper-rlvr", "paper-vla", "field-notes", "purejaxrl".
struct Preset {
  std::string name, source, description;
};
std::vector<Preset> presets();
Routing route_preset(const std::vector<ParameterDescription>& parameters, std::string_view preset,
                     const RoutingOptions& options);

}  // namespace pion
