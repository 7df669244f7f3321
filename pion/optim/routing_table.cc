// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>

#include "pion/optim/routing.h"
#include "pion/optim/routing_checks.h"

namespace pion {
namespace {

constexpr std::size_t kColumns = 8;
using Row = std::array<std::string, kColumns>;

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

std::string heads_text(const Route& route) {
  if (!is_matrix_rule(route.rule)) return "-";
  std::string text;
  for (const std::int64_t heads : route.heads.heads) {
    text += (text.empty() ? "" : "+") + std::to_string(heads);
  }
  return text == "1" ? text : text + (route.heads.axis == 0 ? " rows" : " cols");
}

// "match_rms_adamw 5.06": the rule's name for s and its value for the first block.
std::string scale_text(const Route& route) {
  const MatrixRule* rule = matrix_rule(route.rule);
  if (rule == nullptr) return "-";
  const auto [rows, cols] = folded_shape(route.parameter.shape, route.role);
  std::string text(scale_name(rule->scale));
  if (rows < 1 || cols < 1) return text;
  const HeadLayout& layout = route.heads;
  const std::int64_t length = layout.axis == 0 ? rows : cols;
  const std::int64_t head =
      (layout.sizes.empty() ? length : layout.sizes[0]) / layout.heads[0];
  std::int64_t block_rows = layout.axis == 0 ? head : rows;
  std::int64_t block_cols = layout.axis == 0 ? cols : head;
  if (layout.transposed) std::swap(block_rows, block_cols);
  return text + " " + number_text(rule_scale(*rule, block_rows, block_cols));
}

void append_row(std::string& text, const Row& row,
                const std::array<std::size_t, kColumns>& width) {
  std::string line;
  for (std::size_t c = 0; c < kColumns; ++c) {
    line += row[c];
    if (c + 1 < kColumns) line.append(width[c] - row[c].size() + 2, ' ');
  }
  text += line + "\n";
}

}  // namespace

std::string Routing::table() const {
  std::vector<Row> rows = {
      {"name", "shape", "role", "rule", "heads", "scale", "lr", "why"}};
  std::map<std::string, std::pair<std::int64_t, std::int64_t>>
      totals;  // parameters, numbers
  for (const Route& route : routes) {
    const ParameterDescription& p = route.parameter;
    rows.push_back({p.name, shape_text(p.shape), std::string(role_name(route.role)),
                    std::string(rule_name(route.rule)), heads_text(route),
                    scale_text(route), number_text(learning_rate(route.rule)),
                    route.reason + (p.frozen ? "; frozen" : "")});
    std::int64_t entries = 1;
    for (const std::int64_t n : p.shape) entries *= n;
    const std::string stepped_by(rule_name(route.rule));
    auto& [parameters, numbers] = totals[p.frozen ? "frozen" : stepped_by];
    ++parameters;
    if (p.tied_to.empty()) numbers += entries;
  }
  std::array<std::size_t, kColumns> width{};
  for (const Row& row : rows) {
    for (std::size_t c = 0; c < kColumns; ++c)
      width[c] = std::max(width[c], row[c].size());
  }
  std::string text;
  for (const Row& row : rows) append_row(text, row, width);
  for (const auto& [rule, total] : totals) {
    text += rule + ": " + std::to_string(total.first) + " parameters, " +
            std::to_string(total.second) + " numbers\n";
  }
  return text;
}

}  // namespace pion
