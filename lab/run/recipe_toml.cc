// SPDX-License-Identifier: Apache-2.0
// Recipes as files: reading with positions, writing complete and resolved.
#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>

#include "lab/files/plain_name.h"
#include "lab/files/shown_text.h"
#include "lab/run/recipe_data.h"
#include "lab/run/recipe_files.h"
#include "lab/run/task_info.h"
#include "pion/optim/toml_parser.h"

namespace pion::lab {
namespace {

std::string describe_node(const toml::node& node) {
  std::ostringstream out;
  if (const auto* text = node.as_string())
    out << "text \"" << shortened(text->get()) << '"';
  else if (const auto* whole = node.as_integer())
    out << whole->get();
  else if (const auto* real = node.as_floating_point())
    out << number_text(real->get());
  else if (const auto* flag = node.as_boolean())
    out << (flag->get() ? "true" : "false");
  else if (node.is_table())
    out << "a table";
  else if (node.is_array())
    out << "a list";
  else
    out << "a date or time";
  return out.str();
}

std::string toml_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += '\\', out += c;
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      char buffer[8];
      std::snprintf(buffer, sizeof buffer, "\\u%04x", static_cast<unsigned char>(c));
      out += buffer;
    } else
      out += c;
  }
  return out + '"';
}

std::string toml_key(std::string_view key) {
  const bool bare =
      !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '_' || c == '-';
      });
  return bare ? std::string(key) : toml_text(key);
}

std::string toml_value(const Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return toml_text(*text);
  if (!std::holds_alternative<std::vector<double>>(value)) return value_to_text(value);
  std::string list;
  for (const double each : std::get<std::vector<double>>(value))
    list += (list.empty() ? "" : ", ") + number_text(each);
  return "[" + list + "]";
}

std::string toml_value(const RuleValue& value) {
  return std::visit([](const auto& each) { return toml_value(Value(each)); }, value);
}

}  // namespace

// Walks a parsed file; every message begins with file and line.
class RecipeReader {
 public:
  RecipeReader(std::string_view toml, std::string_view where) : where_(where) {
    try {
      root_ = parse_toml(toml, where);
    } catch (const toml::parse_error& error) {
      fail(at(error.source().begin.line) +
           "is no TOML: " + std::string(error.description()));
    }
  }

  Recipe read() {
    recipe_.data_ = std::make_shared<Recipe::Data>();
    Recipe::Data& data = *recipe_.data_;
    const TaskInfo& info = task();
    data.task = info.name;
    data.schema = run_schema();
    data.schema.insert(data.schema.end(), info.schema.begin(), info.schema.end());
    for (const Key& key : data.schema) data.values.emplace(key.name, key.fallback);
    walk(root_, "");
    check_variants();
    located(0, [&] { recipe_.check(); });
    return recipe_;
  }

 private:
  std::string at(std::size_t line) const {
    return where_ + ":" + (line ? std::to_string(line) + ":" : "") + " ";
  }
  std::string at(const toml::node& node) const { return at(node.source().begin.line); }

  // Runs `action` and puts the position before the message of what it throws.
  template <class F>
  void located(std::size_t line, F action) const {
    try {
      action();
    } catch (const std::invalid_argument& error) {
      fail(at(line) + error.what());
    }
  }

  const TaskInfo& task() {
    const toml::node* node = root_.get("task");
    std::string names;
    for (const TaskInfo& each : tasks()) names += (names.empty() ? "" : ", ") + each.name;
    if (node == nullptr) fail(at(0) + "needs a key \"task\"; there are: " + names);
    if (!node->is_string())
      fail(at(*node) + "task: must be text, got " + describe_node(*node));
    const TaskInfo* info = nullptr;
    located(node->source().begin.line,
            [&] { info = &find_task(node->as_string()->get()); });
    return *info;
  }

  void walk(const toml::table& table, const std::string& prefix) {
    Recipe::Data& data = *recipe_.data_;
    for (const auto& [name, node] : table) {
      const std::string full = prefix + std::string(name.str());
      if (full == "task") continue;
      if (RuleTable* rule = data.rule_table(full))
        read_rule(as_table(node, full), *rule, full);
      else if (full == "optimizer.overrides")
        read_overrides(as_table(node, full));
      else if (full == "compare.grid")
        read_grids(as_table(node, full));
      else if (full == "compare.settings")
        read_settings(as_table(node, full));
      else if (const Key* key = data.find(full))
        read_value(node, *key);
      else if (node.is_table() && is_known_table(full))
        walk(*node.as_table(), full + ".");
      else
        fail(at(node) + "unknown " +
             (node.is_table()
                  ? "table [" + shortened(full) + "]"
                  : "key \"" + shortened(name.str()) + "\"" + in_table(prefix)) +
             suggestion(full, recipe_.key_names()));
    }
  }

  static std::string in_table(const std::string& prefix) {
    return prefix.empty() ? "" : " in [" + prefix.substr(0, prefix.size() - 1) + "]";
  }

  bool is_known_table(const std::string& table) const {
    const std::vector<std::string> names = recipe_.key_names();
    return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      return name.compare(0, table.size() + 1, table + ".") == 0;
    });
  }

  const toml::table& as_table(const toml::node& node, const std::string& name) const {
    if (!node.is_table())
      fail(at(node) + name + ": must be a table, got " + describe_node(node));
    return *node.as_table();
  }

  [[noreturn]] void wrong_type(const toml::node& node, const std::string& name,
                               const std::string& wanted) const {
    fail(at(node) + name + ": must be " + wanted + ", got " + describe_node(node));
  }

  void read_value(const toml::node& node, const Key& key) {
    const std::string wanted = type_name(key.fallback);
    Value value;
    if (std::holds_alternative<bool>(key.fallback) && node.is_boolean()) {
      value = node.as_boolean()->get();
    } else if (std::holds_alternative<std::string>(key.fallback) && node.is_string()) {
      value = node.as_string()->get();
    } else if (std::holds_alternative<std::vector<double>>(key.fallback) &&
               node.is_array()) {
      value = read_numbers(node, key.name);
    } else if (std::holds_alternative<double>(key.fallback) && node.is_number()) {
      value = *node.value<double>();
    } else if (std::holds_alternative<std::int64_t>(key.fallback) && node.is_number()) {
      // 1e6 too, not 1.5
      const std::optional<std::int64_t> whole = node.value<std::int64_t>();
      if (!whole) wrong_type(node, key.name, wanted);
      value = *whole;
    } else {
      wrong_type(node, key.name, wanted);
    }
    located(node.source().begin.line, [&] { check_value(key, value); });
    recipe_.data_->values.insert_or_assign(key.name, std::move(value));
  }

  std::vector<double> read_numbers(const toml::node& node,
                                   const std::string& name) const {
    if (!node.is_array()) wrong_type(node, name, "a list of numbers");
    std::vector<double> numbers;
    for (const toml::node& each : *node.as_array()) {
      if (!each.is_number()) wrong_type(each, name, "a list of numbers");
      numbers.push_back(*each.value<double>());
    }
    return numbers;
  }

  RuleValue read_rule_value(const toml::node& node, const std::string& name) const {
    if (const auto* flag = node.as_boolean()) return flag->get();
    if (const auto* whole = node.as_integer()) return whole->get();
    if (const auto* real = node.as_floating_point()) return real->get();
    if (const auto* text = node.as_string()) return text->get();
    wrong_type(node, name, "a number, text, true or false");
  }

  void read_rule(const toml::table& table, RuleTable& rule, const std::string& name) {
    if (const toml::node* node = table.get("rule")) {
      if (!node->is_string()) wrong_type(*node, name + ".rule", "text");
      located(node->source().begin.line,
              [&] { rule.change_rule(node->as_string()->get(), name); });
    }
    for (const auto& [key, node] : table)
      if (key.str() != "rule") {
        const RuleValue value =
            read_rule_value(node, name + "." + std::string(key.str()));
        located(node.source().begin.line,
                [&] { rule.set_key(std::string(key.str()), value, name); });
      }
  }

  // TOML tables have no order; the lines of the file have.
  void read_overrides(const toml::table& table) {
    std::vector<std::pair<toml::source_position, std::pair<std::string, std::string>>>
        found;
    for (const auto& [glob, node] : table) {
      if (!node.is_string())
        wrong_type(node, "optimizer.overrides", "\"matrix\", \"rest\" or a rule");
      const std::string choice = node.as_string()->get();
      located(node.source().begin.line, [&] { check_override(choice); });
      found.push_back({node.source().begin, {std::string(glob.str()), choice}});
    }
    std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
      return std::pair(a.first.line, a.first.column) <
             std::pair(b.first.line, b.first.column);
    });
    for (auto& each : found) recipe_.data_->overrides.push_back(std::move(each.second));
  }

  void read_grids(const toml::table& table) {
    for (const auto& [label, node] : table) {
      const std::string name = "compare.grid." + std::string(label.str());
      located(node.source().begin.line,
              [&, &text = label] { check_plain_name(text.str(), "[compare.grid]"); });
      std::vector<double> rates = read_numbers(node, name);
      if (!are_rates(rates))
        fail(at(node) + name + ": must be one learning rate >= 0 or more");
      recipe_.data_->grids[std::string(label.str())] = std::move(rates);
      grid_lines_[std::string(label.str())] = node.source().begin.line;
    }
  }

  void read_settings(const toml::table& table) {
    for (const auto& [label, node] : table) {
      const std::string name(label.str());
      located(node.source().begin.line,
              [&] { check_plain_name(name, "[compare.settings]"); });
      settings_lines_[name] = node.source().begin.line;
      flatten(as_table(node, "compare.settings." + name), "",
              recipe_.data_->settings[name]);
    }
  }

  void flatten(const toml::table& table, const std::string& prefix,
               TextPairs& pairs) const {
    for (const auto& [key, node] : table) {
      const std::string full = prefix + std::string(key.str());
      if (const auto* inner = node.as_table())
        flatten(*inner, full + ".", pairs);
      else if (node.is_array())
        pairs.emplace_back(full, value_to_text(Value(read_numbers(node, full))));
      else
        pairs.emplace_back(full, value_to_text(read_rule_value(node, full)));
    }
  }

  // Every optimizer of the comparison must be one that could run.
  void check_variants() const {
    const std::vector<std::string> rules = rule_names();
    for (const auto& [label, line] : grid_lines_)
      if (std::find(rules.begin(), rules.end(), label) == rules.end() &&
          !settings_lines_.contains(label))
        fail(at(line) + "[compare.grid]: unknown optimizer \"" + shortened(label) + "\"" +
             suggestion(label, rules));
    for (const auto& [label, line] : settings_lines_)
      located(line, [&, &name = label] {
        Recipe trial = recipe_;
        Recipe::Data& data = trial.writable();
        data.matrices = {make_rule("pion"), {}};  // this label's keys only
        // make_plan refuses a comparison under a preset; a single run has no use for
        // these
        data.values.insert_or_assign("optimizer.preset", std::string());
        trial.set_all(recipe_.variant(name));
      });
  }

  std::string where_;
  toml::table root_;
  Recipe recipe_;
  std::map<std::string, std::size_t> grid_lines_, settings_lines_;
};

Recipe Recipe::parse(std::string_view toml, std::string_view where) {
  return RecipeReader(toml, where).read();
}

Recipe Recipe::load(const std::string& path_or_name) {
  const std::filesystem::path path = find_recipe(path_or_name);
  return parse(read_recipe_file(path), path.string());
}

void Recipe::check_file() const {
  const std::string written = to_toml();
  std::string problem = "it reads back as another one";
  try {
    if (parse(written, "recipe.toml").to_toml() == written) return;
  } catch (const std::invalid_argument& error) {
    problem = error.what();
  }
  fail("with these flags the recipe of the run could not be read again: " + problem);
}

std::string Recipe::to_toml() const {
  std::vector<std::string> order = {""};  // tables in the schema's order
  std::map<std::string, std::string> bodies;
  for (const Key& key : data_->schema) {
    const std::size_t dot = key.name.rfind('.');
    const std::string table = dot == std::string::npos ? "" : key.name.substr(0, dot);
    if (std::find(order.begin(), order.end(), table) == order.end())
      order.push_back(table);
    bodies[table] += toml_key(key.name.substr(dot == std::string::npos ? 0 : dot + 1)) +
                     " = " + toml_value(data_->values.at(key.name)) + "  # " +
                     key.description + "\n";
  }
  std::ostringstream out;
  out << "task = " << toml_text(data_->task) << "\n";
  for (const std::string& table : order)
    out << (table.empty() ? "" : "\n[" + table + "]\n") << bodies[table];
  for (const RuleTable* table : {&data_->matrices, &data_->rest}) {
    out << "\n[optimizer." << (table == &data_->matrices ? "matrices" : "rest") << "]\n"
        << "rule = " << toml_text(rule_name(table->rule)) << "\n";
    for (const RuleKey& key : rule_keys(table->rule))
      if (key.value)
        out << toml_key(key.name) << " = " << toml_value(*key.value) << "  # "
            << key.description << "\n";
  }
  if (!data_->overrides.empty()) out << "\n[optimizer.overrides]\n";
  for (const auto& [glob, choice] : data_->overrides)
    out << toml_text(glob) << " = " << toml_text(choice) << "\n";
  if (!data_->grids.empty()) out << "\n[compare.grid]\n";
  for (const auto& [label, rates] : data_->grids)
    out << toml_key(label) << " = " << toml_value(Value(rates)) << "\n";
  for (const auto& [label, pairs] : data_->settings) {
    out << "\n[compare.settings." << toml_key(label) << "]\n";
    for (const auto& [key, text] : pairs)
      out << toml_key(key) << " = " << toml_value(parse_rule_value(text)) << "\n";
  }
  return out.str();
}

}  // namespace pion::lab
