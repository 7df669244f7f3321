// SPDX-License-Identifier: Apache-2.0
// The judgements of RoleFinder, in the order in which they are asked.
#include "pion/optim/parameter_role.h"
#include "pion/optim/part_names.h"

namespace pion {

RoleFinder::Answer RoleFinder::adapters(const Entry& e) const {
  for (const std::string& part : e.name.parts) {
    if (part.starts_with("lora_embedding")) {
      return Placement{Role::kAdapterA, "LoRA of an embedding"};
    }
    if (part.starts_with("lora_a") || part == "lora_down") {
      return Placement{Role::kAdapterA,
                       "LoRA A, too wide for its rank to be orthogonalized"};
    }
    if ((part.starts_with("lora_b") || part == "lora_up") && e.shape.size() == 2) {
      return Placement{Role::kHiddenMatrix, "LoRA B, whole"};
    }
  }
  return std::nullopt;
}

RoleFinder::Answer RoleFinder::vectors(const Entry& e) const {
  const bool norm = contains(e.type, {"Norm"}) ||
                    contains(e.name.leaf, {"norm", "ln_", "bn"}) ||
                    contains(e.name.parent, {"norm"}) || e.name.leaf == "ln";
  if (e.name.bias) return Placement{Role::kBias, told_by(e.type, "a bias")};
  if (norm && e.wide_dims <= 1)
    return Placement{Role::kNorm, told_by(e.type, "a norm's gain")};
  if (e.shape.size() <= 1)
    return Placement{Role::kVector, told_by(e.type, "one dimension")};
  if (e.name.leaf == "a_log")
    return Placement{Role::kVector, "state-space rates, entry by entry"};
  // a (1, n) Linear is left to the judgements below: it may be a value head
  if (e.wide_dims <= 1 && !is_linear_type(e.type) && !is_convolution_type(e.type) &&
      !contains(e.type, {"Embedding"}) &&
      (e.shape.size() != 2 || !e.type.empty() ||
       e.name.leaf.find("log") != std::string::npos)) {
    return Placement{Role::kVector, told_by(e.type, "one dimension larger than 1")};
  }
  return std::nullopt;
}

RoleFinder::Answer RoleFinder::embeddings(const Entry& e) const {
  if (contains(e.type, {"Embedding"}))
    return Placement{Role::kEmbedding, "module " + e.type};
  const std::string& leaf = e.name.leaf;
  if (leaf == "embed_out" || leaf == "unembed" || leaf == "unembedding")
    return std::nullopt;
  if (is_one_of(leaf, {"wte", "wpe", "shared", "conv_proj", "patchify", "state_proj",
                       "action_in_proj", "input_proj", "relative_attention_bias"}) ||
      contains(leaf, {"embed", "pos_emb", "token", "queries", "patch"})) {
    return Placement{Role::kEmbedding, told_by(e.type, "name " + leaf)};
  }
  const bool known = is_one_of(leaf, kSelfEvident) || is_one_of(leaf, kMultilayerLeaves);
  if (!known && contains(e.name.parent, {"embed"})) {
    return Placement{Role::kEmbedding,
                     told_by(e.type, "name " + e.name.parent + "." + leaf)};
  }
  return std::nullopt;
}

RoleFinder::Answer RoleFinder::recurrent(const Entry& e) const {
  const std::string& leaf = e.name.leaf;
  if (e.shape.size() == 2 &&
      (leaf.starts_with("weight_ih") || leaf.starts_with("weight_hh") ||
       leaf.starts_with("weight_hr"))) {
    return Placement{Role::kHiddenMatrix, told_by(e.type, "recurrent weight")};
  }
  return std::nullopt;
}

RoleFinder::Answer RoleFinder::attention(const Entry& e) const {
  if (e.shape.size() != 2) return std::nullopt;
  // "to_out.0" is the Linear of to_out
  const bool numbered = is_number(e.name.leaf) && e.name.parent == "to_out";
  const std::string& leaf = numbered ? e.name.parent : e.name.leaf;
  const bool inside = in_attention(e);
  const std::string reason =
      told_by(e.type, "name " + leaf + (inside ? " in attention" : ""));
  if (e.name.inside({"indexer"})) {  // of sparse attention, with heads of its own
    return Placement{Role::kHiddenMatrix, reason + ", of an indexer: taken whole"};
  }
  if (is_one_of(leaf, kLatent)) {
    return Placement{Role::kHiddenMatrix, reason + ", several parts in one: taken whole"};
  }
  if (!inside && !is_one_of(leaf, kSelfEvident)) return std::nullopt;
  if (is_one_of(leaf, kFused)) return Placement{Role::kAttentionFusedQkv, reason};
  if (is_one_of(leaf, kQuery)) return Placement{Role::kAttentionQ, reason};
  if (is_one_of(leaf, kKey)) return Placement{Role::kAttentionK, reason};
  if (is_one_of(leaf, kValue)) return Placement{Role::kAttentionV, reason};
  if (is_one_of(leaf, kOutput)) return Placement{Role::kAttentionO, reason};
  return std::nullopt;
}

RoleFinder::Answer RoleFinder::routers(const Entry& e) const {
  const std::string& leaf = e.name.leaf;
  // "gate" beside "up" and "down" is half of a gated MLP
  const bool gated_mlp =
      has_sibling(e, {"up", "down", "w1", "fc1", "up_proj", "down_proj", "proj"});
  if (leaf.find("router") != std::string::npos || e.name.parent == "router" ||
      leaf == "shared_expert_gate" || leaf == "gate_network" ||
      (leaf == "gate" && !gated_mlp) || leaf == "wg") {
    return Placement{Role::kRouter, told_by(e.type, "name " + leaf)};
  }
  return std::nullopt;
}

RoleFinder::Answer RoleFinder::heads(const Entry& e) const {
  if (e.shape.size() != 2) return std::nullopt;
  const std::string& leaf = e.name.leaf;
  const std::string reason = told_by(e.type, "name " + leaf);
  if (is_head_name(leaf)) return Placement{Role::kHead, reason};
  if (is_head_name(e.name.parent) && !layer_number(leaf)) {
    return Placement{Role::kHead, told_by(e.type, "name " + e.name.parent + "." + leaf)};
  }
  if (!e.name.in_block && is_one_of(leaf, kTopHeadLeaves))
    return Placement{Role::kHead, reason};
  return std::nullopt;
}

RoleFinder::Answer RoleFinder::convolutions(const Entry& e) const {
  const bool named = contains(e.name.leaf, {"conv", "downsample"}) ||
                     contains(e.name.parent, {"conv", "downsample", "shortcut"});
  if (e.shape.size() < 3 ||
      (!is_convolution_type(e.type) && !named && e.shape.size() < 4)) {
    return std::nullopt;
  }
  if (!e.type.empty() && !is_convolution_type(e.type)) return std::nullopt;
  if (may_be_a_stack(e)) return std::nullopt;
  if (contains(e.name.parent, {"embed"}))
    return Placement{Role::kEmbedding, "patch embedding"};
  if (e.shape[1] == 1 && !e.type.starts_with("ConvTranspose")) {
    return Placement{Role::kVector,
                     told_by(e.type, "one input channel: depthwise or first layer")};
  }
  return Placement{Role::kConvolution,
                   told_by(e.type, std::to_string(e.shape.size()) +
                                       " dimensions, folded to (out, rest)")};
}

RoleFinder::Answer RoleFinder::experts(const Entry& e) const {
  const bool named = in_experts(e) || e.name.inside({"moe"});
  if (e.shape.size() == 3 && (named || is_one_of(e.name.leaf, kMultilayerLeaves))) {
    return Placement{Role::kExpertStack,
                     told_by(e.type, "stack of " + std::to_string(e.shape[0]) +
                                         " experts, name " + e.name.leaf)};
  }
  return std::nullopt;
}

RoleFinder::Answer RoleFinder::multilayer(const Entry& e) const {
  if (e.shape.size() != 2) return std::nullopt;
  const std::string& leaf = e.name.leaf;
  const bool inside =
      e.name.inside(kMultilayerWords) || e.name.parent == "ff" || in_experts(e);
  const bool known =
      is_one_of(leaf, kMultilayerLeaves) ||
      (e.name.in_block && (is_one_of(leaf, {"c_proj", "wo"}) || layer_number(leaf)));
  if (!inside && !known) return std::nullopt;
  // a whole network called mlp at the top of the model ends in its head: see sequential()
  if (!e.name.in_block && layer_number(leaf) && is_number(leaf)) return std::nullopt;
  if (e.name.in_block && is_number(leaf) && !inside) return std::nullopt;
  return Placement{Role::kHiddenMatrix,
                   told_by(e.type, "name " + leaf + (inside ? " in MLP" : ""))};
}

RoleFinder::Answer RoleFinder::sequential(const Entry& e) const {
  const auto number = layer_number(e.name.leaf);
  if (!number || e.shape.size() != 2 || !is_linear_type(e.type)) return std::nullopt;
  if (!e.name.in_block && may_end(e)) return std::nullopt;
  const bool last = is_last(e);
  // a network of a policy ends in its head; so does the only network of a model without
  // heads
  const bool own_head =
      contains(e.name.parent, kPolicyWords) || e.name.inside(kPolicyWords);
  if (last && !e.name.in_block && (own_head || !has_head_)) {
    return Placement{
        Role::kHead,
        told_by(e.type, "last of " + (e.name.prefix.empty() ? std::string("the model")
                                                            : e.name.prefix))};
  }
  // the output of a decoder, in a model whose head is elsewhere
  if (last && !e.name.in_block && !is_read(e)) return std::nullopt;
  return Placement{
      Role::kHiddenMatrix,
      told_by(e.type, "number " + std::to_string(*number) + " of a sequence")};
}

RoleFinder::Answer RoleFinder::remaining_linear(const Entry& e) const {
  if (e.shape.size() != 2) return std::nullopt;
  const std::string& leaf = e.name.leaf;
  if (e.name.inside({"projector", "connector", "merger", "pooler"}) ||
      contains(leaf, {"projector", "connector", "pooler"})) {
    return Placement{Role::kHiddenMatrix, told_by(e.type, "connector or pooler")};
  }
  if (contains(e.name.parent, {"norm"})) {
    return Placement{Role::kHiddenMatrix, told_by(e.type, "modulation of a norm")};
  }
  if (e.name.in_block && is_linear_type(e.type)) {
    return Placement{Role::kHiddenMatrix, "module " + e.type + " in a numbered block"};
  }
  return std::nullopt;
}

}  // namespace pion
