// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
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
  bool frozen = false;      // takes no gradient now; for the table only
};

enum class Role {
  kHiddenMatrix,  // takes the matrix rule
  kAttentionQ,
  kAttentionK,
  kAttentionV,
  kAttentionO,
  kAttentionFusedQkv,  // the same, per head
  kConvolution,        // folds to (out, rest)
  kExpertStack,        // (experts, out, in), or (experts, in, out): a matrix each
  kEmbedding,
  kHead,
  kNorm,
  kBias,
  kVector,
  kRouter,    // take the auxiliary rule
  kAdapterA,  // LoRA's A, (rank x in): the same; see docs of route()
};
std::string_view role_name(Role role);  // "hidden_matrix", "attention_q", ...
bool is_matrix_role(Role role);
std::vector<std::string> role_names();
Role make_role(std::string_view name);  // throws with the nearest right name

// Counts of a transformer; 0 means unknown: projections are then taken whole, and say so.
// Linear attention (gated delta nets) beside softmax attention has counts of its own.
struct AttentionShape {
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  std::int64_t linear_key_heads = 0, linear_value_heads = 0;
};
// From a Hugging Face config.json's text, of whose text_config if it has one. kv_heads is
// heads and head_dim hidden_size / heads where the file leaves them out, as Hugging Face
// has it. Throws std::invalid_argument on malformed JSON and on counts that are no
// positive integers.
AttentionShape attention_shape_from_config(std::string_view json);

struct Route {
  ParameterDescription parameter;
  Role role;
  Rule rule;
  HeadLayout heads;                       // matrix rules only; of the folded shape
  std::string reason;                     // why this role: "module Linear, name q_proj"
  std::vector<std::string> keys_by_role;  // "lr", "weight_decay": set for this role
};

// The matrix that a matrix rule sees: a convolution is (out, rest), a stack of E experts
// (E out, in) with one block per expert. Row-major storage does not move.
struct FoldedShape {
  std::int64_t rows, cols;
};
FoldedShape folded_shape(const std::vector<std::int64_t>& shape, Role role);

struct RoutingOptions {
  Rule matrices = PionRule{};  // for hidden matrices
  Rule rest = AdamWRule{};     // for everything else
  bool per_head = true;        // attention projections, where counts are known
  AttentionShape attention;
  // Counts of a part of the model, by glob on the name ("vision_tower.*"); first match
  // wins, and `attention` is for the others. A glob that matches nothing is an error.
  std::vector<std::pair<std::string, AttentionShape>> attention_by_name;
  // Decisions of the user, first match wins: a glob on the name ("*.proj.weight") to
  // "matrix", "rest" or a rule name (taken from `matrices` or `rest` where that is its
  // rule, else with its defaults); of three dimensions and more also to "stack" (the last
  // two, (out, in), are a matrix), "stack_in_out" (the same, stored (in, out)) or
  // "convolution" ((out, rest)), each under `matrices`. `*` matches any text, dots too;
  // `?` one character. A glob that matches nothing is an error.
  std::vector<std::pair<std::string, std::string>> overrides;
  // Whether norms, biases and other vectors decay as the rule says; false: not at all.
  bool decay_vectors = true;
  // Learning rates in place of the rule's, by the role's name: {"embedding", 3e-4}. A
  // role that no parameter has is an error.
  std::vector<std::pair<std::string, double>> lr_by_role;
};

struct Routing {
  std::vector<Route> routes;

  // name, shape, role, rule, heads, scale, lr, why; aligned columns
  std::string table() const;
  std::string to_toml() const;  // complete; edited by hand and read back
  // Throws std::invalid_argument with line and column for malformed TOML, unknown keys
  // (nearest right one), unknown rules.
  static Routing from_toml(std::string_view text);
  // Checks that routes and parameters match by name and shape; names what is missing or
  // extra.
  void check_against(const std::vector<ParameterDescription>& parameters) const;
};

// Decides by module type, name, ties and shape. Throws std::invalid_argument that lists
// every parameter that it cannot place (an unknown 2-D parameter) and how to decide it;
// that names a projection whose rows its head count does not divide; or that an optimizer
// wrapper has flattened the model (FSDP1), when no matrix is left to see.
//
// Judgements that a user may want to know:
//   input layers (patch, state embeddings) and output heads take the rest's rule (Jordan)
//   tied parameters take one role; if one of them is an embedding or a head, all are
//   LoRA: B is a hidden matrix, A takes the rest's rule: (rank x in) is so wide that
//     making its few singular values equal amplifies noise
//   a convolution with one input channel is depthwise or a first layer: the rest's rule
//   the last Linear of a Sequential at the top of the model is its head; where several
//     may end the model (a VAE's mean and variance, its decoder), each has to be decided
//   experts stored (in, out), as GPT-OSS and Llama 4 have them, are told by the widths of
//     their pair of projections or of the model, and count as (out, in) transposed
//   linear attention is cut by linear_key_heads and linear_value_heads, never by the
//     counts of the softmax attention; its fused projections stay whole
Routing route(const std::vector<ParameterDescription>& parameters,
              const RoutingOptions& options);

// Presets with their source: "paper-rlvr", "paper-vla", "field-notes", "purejaxrl".
struct Preset {
  std::string name, source, description;
};
std::vector<Preset> presets();
// The preset sets the rules; of `options` it takes everything else. Throws if matrices or
// rest differ from their defaults: change the routes or the TOML afterwards.
Routing route_preset(const std::vector<ParameterDescription>& parameters,
                     std::string_view preset, const RoutingOptions& options);

}  // namespace pion
