// SPDX-License-Identifier: Apache-2.0
#include "lab/report/routing_table.h"

#include <sstream>

#include "pion/optim/toml_parser.h"

namespace pion::lab::report {
namespace {

// A value as the table shows it: lists joined by `between`, tables as "axis rows, count
// 4".
std::string cell(const toml::node& node, const char* between) {
  if (const auto* value = node.as_string()) return value->get();
  std::ostringstream out;
  if (const auto* list = node.as_array()) {
    for (const toml::node& entry : *list)
      out << (out.tellp() > 0 ? between : "") << cell(entry, between);
  } else if (const auto* table = node.as_table()) {
    for (const auto& [key, value] : *table) {
      out << (out.tellp() > 0 ? ", " : "") << key.str() << ' ' << cell(value, between);
    }
  } else if (const auto* real = node.as_floating_point()) {
    out << real->get();  // six digits: 0.001, not 1.0e-3
  } else {
    node.visit([&](const auto& value) { out << value; });
  }
  return out.str();
}

// A column of a parameter. Its rule is a name: the rule's own keys (lr, scale) are in the
// file's [rules.NAME]; or it is a table with the name and the keys inside.
const toml::node* field(const toml::table& file, const toml::table& row,
                        std::string_view column) {
  const toml::node* node = row.get(column);
  const toml::node* rule = row.get("rule");
  if (rule != nullptr && rule->is_string()) {
    const auto named = file["rules"][rule->as_string()->get()];
    if (node == nullptr && named.is_table()) return named.as_table()->get(column);
  }
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
    file = parse_toml(text);
  } catch (const toml::parse_error&) {
    return nullptr;
  }
  const toml::array* routes = nullptr;
  for (const auto& [key, value] : file) {
    if (routes == nullptr && value.is_array_of_tables()) routes = value.as_array();
  }
  if (routes == nullptr) return nullptr;
  Json columns = Json::array(), rows = Json::array();
  for (const char* column : {"name", "shape", "role", "rule", "heads", "axis", "scale",
                             "lr", "tied_to", "reason"}) {
    for (const toml::node& row : *routes) {
      if (field(file, *row.as_table(), column) == nullptr) continue;
      columns.push_back(column);
      break;
    }
  }
  for (const toml::node& row : *routes) {
    Json cells = Json::array();
    for (const Json& column : columns) {
      const std::string& name = column.get_ref<const std::string&>();
      const toml::node* node = field(file, *row.as_table(), name);
      const char* between = name == "shape" ? " × " : ", ";
      cells.push_back(node == nullptr ? std::string() : cell(*node, between));
    }
    rows.push_back(cells);
  }
  return {{"columns", columns}, {"rows", rows}};
}

}  // namespace pion::lab::report
