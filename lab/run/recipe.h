// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pion/optim/rule.h"

namespace pion::lab {

using Value = std::variant<bool, std::int64_t, double, std::string, std::vector<double>>;

// One key that a task or the run loop knows: "ppo.clip", with default, range and description.
struct Key {
  std::string name;         // dotted: table and key
  Value fallback;           // default; also fixes the type
  std::string description;  // one line, with the unit
  double min = -1e300, max = 1e300;   // numbers only
  std::vector<std::string> choices;   // text only; empty: anything
};
using Schema = std::vector<Key>;

// A resolved experiment: every key has a value. Two tables are special: [optimizer.matrices] and
// [optimizer.rest] are rules (key "rule" and that rule's own keys).
class Recipe {
 public:
  // Reads TOML, checks every key against the schema of the task that it names (key "task").
  // Throws std::invalid_argument with file, line and remedy: not TOML, unknown key (nearest right
  // one), wrong type, out of range, unknown task.
  static Recipe load(const std::string& path_or_name);
  static Recipe parse(std::string_view toml, std::string_view where);

  // A flag's value in text form: set("ppo.clip", "0.1"). Same checks.
  void set(std::string_view key, std::string_view text);

  bool flag(std::string_view key) const;
  std::int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  const std::string& text(std::string_view key) const;
  const std::vector<double>& numbers(std::string_view key) const;

  const std::string& task() const;
  const Rule& matrices() const;
  const Rule& rest() const;
  std::string to_toml() const;  // complete and resolved; parse(to_toml()) is the same recipe
  const Schema& schema() const;

 private:
  struct Data;
  std::shared_ptr<Data> data_;
};

}  // namespace pion::lab
