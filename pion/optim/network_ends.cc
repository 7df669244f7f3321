// SPDX-License-Identifier: Apache-2.0
// RoleFinder on numbered layers at the top of a model: which of them may end it.
#include <algorithm>

#include "pion/optim/parameter_role.h"
#include "pion/optim/part_names.h"

namespace pion {

std::int64_t RoleFinder::inputs(const Entry& e) const {
  return e.shape[e.type == "Conv1D" && e.shape.size() == 2 ? 0 : 1];
}

std::int64_t RoleFinder::outputs(const Entry& e) const {
  return e.shape[e.type == "Conv1D" && e.shape.size() == 2 ? 1 : 0];
}

bool RoleFinder::is_last(const Entry& e) const {
  const auto& layers = numbered_.at(e.name.prefix);
  const auto number = layer_number(e.name.leaf);
  return std::all_of(layers.begin(), layers.end(),
                     [&](const auto& layer) { return layer.first <= *number; });
}

// One of several numbered layers that may give an output: a layer that reads what the
// last one reads (a VAE's fc21 and fc22), that stands before one that begins anew (the
// twin critics l1 ... l6), or that the model holds after the one of the highest number
// and that the next number does not read.
bool RoleFinder::may_end(const Entry& e) const {
  std::vector<std::pair<std::int64_t, std::size_t>> layers = numbered_.at(e.name.prefix);
  std::erase_if(layers, [this](const auto& layer) {
    const Entry& one = entries_[layer.second];
    return one.shape.size() != 2 || !is_linear_type(one.type);
  });
  std::sort(layers.begin(), layers.end());
  std::set<std::size_t> ends = {layers.back().second};
  const auto at = [&](std::size_t i) -> const Entry& {
    return entries_[layers[i].second];
  };
  for (std::size_t i = layers.size(); i-- > 1;) {
    const bool reads = outputs(at(i - 1)) == inputs(at(i));
    const bool beside = ends.contains(at(i).index) && inputs(at(i - 1)) == inputs(at(i));
    const bool anew = i > 1 && inputs(at(i)) == inputs(at(0));
    if (!reads && (beside || anew)) ends.insert(at(i - 1).index);
  }
  for (std::size_t i = 0; i + 1 < layers.size(); ++i) {
    const bool held_last = std::all_of(layers.begin(), layers.end(), [&](const auto& l) {
      return l.second <= layers[i].second;
    });
    if (held_last && outputs(at(i)) != inputs(at(i + 1))) ends.insert(at(i).index);
  }
  return ends.size() > 1 && ends.contains(e.index);
}

// Some layer can take the outputs of `e`: a head of that width, or anything wide enough
// that the model holds after it (joined with other inputs, or flattened).
bool RoleFinder::is_read(const Entry& e) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const Entry& other) {
    if (other.shape.size() < 2 || other.name.bias || other.index == e.index) return false;
    const bool head = is_head_name(other.name.leaf) || is_head_name(other.name.parent) ||
                      is_one_of(other.name.leaf, kTopHeadLeaves);
    return (head && inputs(other) == outputs(e)) ||
           (other.index > e.index && inputs(other) >= outputs(e));
  });
}

std::string RoleFinder::doubt(std::size_t index) const {
  const Entry& e = entries_[index];
  if (e.shape.size() > 2) {
    return "a stack of matrices or a convolution: \"stack\", \"stack_in_out\", "
           "\"convolution\"";
  }
  if (!e.name.in_block && layer_number(e.name.leaf) && is_linear_type(e.type)) {
    return "may end the model: \"rest\" if it does, \"matrix\" if other layers read it";
  }
  return "";
}

}  // namespace pion
