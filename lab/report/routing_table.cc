// SPDX-License-Identifier: Apache-2.0
#include "lab/report/routing_table.h"

#include <sstream>
#include <toml++/toml.h>

namespace pion::lab::report {
namespace {

// A value as the table shows it: lists as 64 × 32, tables as "axis rows, count 4".
std::string cell(const toml::node& node) {
  if (const auto* value = node.as_string()) return value->get();
  std::ostringstream out;
  if (const auto* list = node.as_array()) {
    for (const toml::node& entry : *list) out << (out.tellp() > 0 ? " × " : "") << cell(entry);
  } else if (const auto* table = node.as_table()) {
    for (const auto& [key, value] : *table) {
      out << (out.tellp() > 0 ? ", " : "") << key.str() << ' ' << cell(value);
    }
  } else if (const auto* real = node.as_floating_point()) {
    out << real->get();  // six digits: 0.001, not 1.0e-3
  } else {
    node.visit([&](const auto& value) { out << value; });
  }
  return out.str();
}

// `rule = "pion"`, or a table [routes.rule] with a name inside and that rule's own keys.
const toml::node* find(const toml::table& row, std::string_view column) {
  const toml::node* node = row.get(column);
  const toml::node* rule = row.get("rule");
  if (column == "rule" && node != nullptr && node->is_table()) {
    for (const char* key : {"rule", "name", "kind"}) {
      if (const toml::node* name = node->as_table()->get(key)) return name;
    }
  }
  if (node == nullptr && rule != nullptr && rule->is_table()) {
    node = rule->as_table()->get(column);
  }
  return node;
}

}  // namespace

Json routing_table(std::string_view text) {
  toml::table file;
  try {
    file = toml::parse(text);
  } catch (const toml::parse_error&) {
    return nullptr;
  }
  const toml::array* routes = nullptr;
  for (const auto& [key, value] : file) {
    if (routes == nullptr && value.is_array_of_tables()) routes = value.as_array();
  }
  if (routes == nullptr) return nullptr;
  Json columns = Json::array(), rows = Json::array();
  for (const char* column :
       {"name", "shape", "role", "rule", "heads", "head_axis", "scale", "lr", "reason"}) {
    for (const toml::node& row : *routes) {
      if (find(*row.as_table(), column) == nullptr) continue;
      columns.push_back(column);
      break;
    }
  }
  for (const toml::node& row : *routes) {
    Json cells = Json::array();
    for (const Json& column : columns) {
      const toml::node* node = find(*row.as_table(), column.get_ref<const std::string&>());
      cells.push_back(node == nullptr ? std::string() : cell(*node));
    }
    rows.push_back(cells);
  }
  return {{"columns", columns}, {"rows", rows}};
}

}  // namespace pion::lab::report
