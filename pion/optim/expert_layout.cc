// SPDX-License-Identifier: Apache-2.0
// RoleFinder on stacks of experts: which parameters are one, and how they are stored.
#include <algorithm>

#include "pion/optim/parameter_role.h"
#include "pion/optim/part_names.h"

namespace pion {
namespace {

std::size_t shared_parts(const ParameterName& a, const ParameterName& b) {
  const auto ends =
      std::mismatch(a.parts.begin(), a.parts.end(), b.parts.begin(), b.parts.end());
  return static_cast<std::size_t>(ends.first - a.parts.begin());
}

bool is_router(const ParameterName& name) {
  return contains(name.leaf, {"router"}) || contains(name.parent, {"router"}) ||
         name.leaf == "gate";
}

}  // namespace

// "experts", "expert_3", "shared_expert"; no action expert and no "vlm_with_expert",
// which are whole towers.
bool RoleFinder::in_experts(const Entry& e) const {
  if (contains(e.type, {"Experts"}) || contains(e.name.leaf, {"expert"})) return true;
  const auto& parts = e.name.parts;
  return std::any_of(parts.begin(), parts.end() - 1, [](const std::string& part) {
    return part.starts_with("expert") || part == "shared_expert" ||
           contains(part, {"experts"});
  });
}

// Whether a stack is stored (experts, in, out), from the widths that go together: an up
// projection (out, in) is (I, w) or, with its gate, (2 I, w), its down projection (w, I).
// Where the two leave both ways open the model's own width w decides; nothing if it
// cannot be told.
std::optional<bool> RoleFinder::experts_in_out(std::size_t index) const {
  const Entry& e = entries_[index];
  const std::size_t n = e.shape.size();
  if (n < 3) return std::nullopt;
  const std::int64_t rows = e.shape[n - 2], cols = e.shape[n - 1];
  const bool down = is_one_of(e.name.leaf, kDownProjections);
  for (const Entry& other : entries_) {
    if (other.name.prefix != e.name.prefix || other.shape.size() != n ||
        other.name.bias || is_one_of(other.name.leaf, kDownProjections) == down) {
      continue;
    }
    const std::int64_t other_rows = other.shape[n - 2], other_cols = other.shape[n - 1];
    const std::int64_t a = down ? other_rows : rows, b = down ? other_cols : cols;
    const std::int64_t c = down ? rows : other_rows, d = down ? cols : other_cols;
    const bool out_in = b == c && (a == d || a == 2 * d);
    const bool in_out = a == d && (b == c || b == 2 * c);
    if (out_in != in_out) return in_out;
  }
  const std::int64_t width = width_of(e);
  if (rows == cols || (rows == width) == (cols == width)) return std::nullopt;
  return (rows == width) != down;
}

// Width of the layers around a stack: what its router or the nearest embedding says; 0 if
// neither is there.
std::int64_t RoleFinder::width_of(const Entry& e) const {
  std::int64_t width = 0;
  std::size_t nearest = 0;
  for (const Entry& other : entries_) {
    if (other.shape.size() != 2 || other.name.bias) continue;
    const bool router = is_router(other.name) && other.shape[0] == e.shape[0];
    const bool table = contains(other.type, {"Embedding"}) ||
                       contains(other.name.leaf, {"embed"}) || other.name.leaf == "wte";
    if (!router && !table) continue;
    const std::size_t shared = shared_parts(e.name, other.name) + (router ? 1 : 0);
    if (width == 0 || shared > nearest) width = other.shape[1], nearest = shared;
  }
  return width;
}

// Four dimensions and more under a name of experts, and no module that would tell.
bool RoleFinder::may_be_a_stack(const Entry& e) const {
  return e.type.empty() && e.shape.size() > 3 &&
         (in_experts(e) || e.name.inside({"moe"}) ||
          is_one_of(e.name.leaf, kMultilayerLeaves));
}

}  // namespace pion
