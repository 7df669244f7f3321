// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/parameter_role.h"

#include <algorithm>
#include <stdexcept>

#include "pion/optim/part_names.h"

namespace pion {
std::optional<std::int64_t> layer_number(std::string_view leaf) {
  for (const std::string_view word : {"linear", "fc", "layer", "dense", "lin", "l"}) {
    if (leaf.starts_with(word)) {
      leaf.remove_prefix(word.size());
      break;
    }
  }
  if (leaf.starts_with('_')) leaf.remove_prefix(1);
  if (!is_number(leaf) || leaf.size() > 9) return std::nullopt;
  return std::stoll(std::string(leaf));
}

RoleFinder::RoleFinder(const std::vector<ParameterDescription>& parameters) {
  check_flattened(parameters);
  for (const ParameterDescription& p : parameters) {
    Entry e{take_apart(p.name), plain_module_type(p.module_type), p.shape};
    e.wide_dims = static_cast<int>(std::count_if(p.shape.begin(), p.shape.end(),
                                                 [](std::int64_t n) { return n != 1; }));
    e.index = entries_.size();
    entries_.push_back(std::move(e));
  }
  collect_neighbours();
  for (const Entry& e : entries_) answers_.push_back(decide(e));
  resolve_ties(parameters);
}

void RoleFinder::check_flattened(
    const std::vector<ParameterDescription>& parameters) const {
  for (const ParameterDescription& p : parameters) {
    const ParameterName name = take_apart(p.name);
    const bool named_flat = p.name.find("flat_param") != std::string::npos;
    // sharded in place (FSDP1 with use_orig_params): a projection's weight lost its rows;
    // the magnitudes of DoRA never had any
    const bool lost_rows = p.shape.size() == 1 && !name.bias &&
                           !contains(p.name, {"magnitude"}) &&
                           (is_linear_type(plain_module_type(p.module_type)) ||
                            is_one_of(name.leaf, kSelfEvident));
    if (named_flat || lost_rows) {
      throw std::invalid_argument(
          "route: matrices must keep their rows and columns, got " + p.name +
          " of one dimension (" + std::to_string(p.shape.empty() ? 1 : p.shape[0]) +
          " numbers): a wrapper such as FSDP1 has flattened the model. Route the model "
          "before it is wrapped, or shard it by FSDP2 (fully_shard), which keeps shapes");
    }
  }
}

void RoleFinder::collect_neighbours() {
  for (const Entry& e : entries_) {
    if (is_one_of(e.name.leaf, kDeltaNet)) linear_attentions_.insert(e.name.prefix);
    if (is_one_of(e.name.leaf, kQuery) && e.shape.size() == 2)
      query_rows_.emplace(e.name.prefix, e.shape[0]);
    if (e.shape.size() < 2 || e.name.bias) continue;
    children_[e.name.prefix].insert(e.name.leaf);
    in_out_ = in_out_ || e.type == "Conv1D" ||
              (e.type.empty() && e.name.leaf == "c_attn" && e.shape.size() == 2 &&
               e.shape[1] > e.shape[0]);
    has_head_ = has_head_ || is_head_name(e.name.leaf) || is_head_name(e.name.parent) ||
                (!e.name.in_block && is_one_of(e.name.leaf, kTopHeadLeaves));
    if (const auto number = layer_number(e.name.leaf)) {
      numbered_[e.name.prefix].emplace_back(*number, e.index);
    }
  }
}

void RoleFinder::resolve_ties(const std::vector<ParameterDescription>& parameters) {
  std::map<std::string, std::size_t> by_name;
  for (std::size_t i = 0; i < parameters.size(); ++i) by_name[parameters[i].name] = i;
  const auto outside = [this](std::size_t i) {
    return answers_[i] &&
           (answers_[i]->role == Role::kEmbedding || answers_[i]->role == Role::kHead);
  };
  // the first of each group answers for all, an embedding or a head before anything else
  std::map<std::size_t, std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].tied_to.empty()) continue;
    std::size_t root = i;
    for (std::size_t hops = 0;
         hops < parameters.size() && !parameters[root].tied_to.empty(); ++hops) {
      const auto found = by_name.find(parameters[root].tied_to);
      if (found == by_name.end()) break;
      root = found->second;
    }
    auto& members = groups[root];
    if (members.empty()) members.push_back(root);
    if (root != i) members.push_back(i);
  }
  for (const auto& [root, members] : groups) {
    const auto decisive = std::find_if(members.begin(), members.end(), outside);
    if (decisive == members.end()) {
      for (const std::size_t i : members) answers_[i] = answers_[root];
      continue;
    }
    for (const std::size_t i : members) {
      if (!outside(i)) answers_[i] = Placement{answers_[*decisive]->role, ""};
      answers_[i]->reason +=
          (answers_[i]->reason.empty() ? "tied to " : ", tied to ") +
          parameters[i == *decisive ? (i == root ? members.back() : root) : *decisive]
              .name;
    }
  }
}

std::optional<Placement> RoleFinder::find(std::size_t index) const {
  return answers_[index];
}

bool RoleFinder::stored_in_out(std::size_t index) const {
  const Entry& e = entries_[index];
  if (answers_[index] && answers_[index]->role == Role::kExpertStack) {
    return experts_in_out(index).value_or(false);
  }
  if (e.shape.size() != 2) return e.type.starts_with("ConvTranspose");
  if (!e.type.empty()) return e.type == "Conv1D";
  return in_out_ && is_one_of(e.name.leaf, {"c_attn", "c_proj", "c_fc", "q_attn"});
}

std::int64_t RoleFinder::query_rows(std::size_t index) const {
  const auto found = query_rows_.find(entries_[index].name.prefix);
  return found == query_rows_.end() ? 0 : found->second;
}

std::int64_t RoleFinder::output_inputs(std::size_t index) const {
  for (const Entry& e : entries_) {
    if (e.name.prefix == entries_[index].name.prefix && is_one_of(e.name.leaf, kOutput) &&
        e.shape.size() == 2 && !e.name.bias) {
      return inputs(e);
    }
  }
  return 0;
}

std::int64_t RoleFinder::recurrent_gates(std::size_t index) const {
  const Entry& e = entries_[index];
  if (!recurrent(e) || e.shape.size() != 2) return 1;
  if (e.type.starts_with("LSTM")) return 4;
  if (e.type.starts_with("GRU")) return 3;
  if (e.type.starts_with("RNN")) return 1;
  // hidden-to-hidden is (gates H, H)
  for (const Entry& other : entries_) {
    if (other.name.prefix == e.name.prefix && other.name.leaf.starts_with("weight_hh") &&
        other.shape.size() == 2 && other.shape[0] % other.shape[1] == 0 &&
        e.shape[0] == other.shape[0]) {
      return other.shape[0] / other.shape[1];
    }
  }
  return 1;
}

bool RoleFinder::has_sibling(const Entry& e, Words leaves) const {
  const auto found = children_.find(e.name.prefix);
  if (found == children_.end()) return false;
  return std::any_of(leaves.begin(), leaves.end(), [&](std::string_view leaf) {
    return found->second.contains(std::string(leaf));
  });
}

bool RoleFinder::in_attention(const Entry& e) const {
  if (e.type.find("Attention") != std::string::npos) return true;
  if (e.type == "NonDynamicallyQuantizableLinear")
    return true;  // out_proj of MultiheadAttention
  // the nearest named parts decide: "attention.output.dense" is,
  // "attention_block.mlp.proj" is not
  const auto& parts = e.name.parts;
  for (std::size_t i = parts.size() - 1, seen = 0; i-- > 0 && seen < 2;) {
    if (is_number(parts[i])) continue;
    if (contains(parts[i], {"norm"})) return false;  // "post_attention_layernorm.dense"
    if (contains(parts[i], kAttentionWords)) return true;
    if (contains(parts[i], kMultilayerWords)) return false;
    ++seen;
  }
  return has_sibling(e, kQuery) && has_sibling(e, kKey) && has_sibling(e, kValue);
}

bool RoleFinder::in_linear_attention(std::size_t index) const {
  const ParameterName& name = entries_[index].name;
  return name.inside({"linear_attn", "linear_attention", "delta_net", "deltanet"}) ||
         linear_attentions_.contains(name.prefix);
}

bool RoleFinder::in_latent_attention(std::size_t index) const {
  return has_sibling(entries_[index], kLatent);
}

RoleFinder::Answer RoleFinder::decide(const Entry& e) const {
  using Judgement = Answer (RoleFinder::*)(const Entry&) const;
  for (const Judgement judgement :
       {&RoleFinder::adapters, &RoleFinder::vectors, &RoleFinder::embeddings,
        &RoleFinder::recurrent, &RoleFinder::attention, &RoleFinder::routers,
        &RoleFinder::heads, &RoleFinder::convolutions, &RoleFinder::experts,
        &RoleFinder::multilayer, &RoleFinder::sequential,
        &RoleFinder::remaining_linear}) {
    if (Answer answer = (this->*judgement)(e)) return answer;
  }
  return std::nullopt;
}

}  // namespace pion
