// SPDX-License-Identifier: Apache-2.0
// Recipes: one experiment as a table of checked keys.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "pion/optim/rule.h"

namespace pion::lab {

using Value = std::variant<bool, std::int64_t, double, std::string, std::vector<double>>;
using TextPairs = std::vector<std::pair<std::string, std::string>>;

// One key that a task or the run loop knows: "ppo.clip", with default, range and
// description.
struct Key {
  std::string name;                  // dotted: table and key
  Value fallback;                    // default; also fixes the type
  std::string description;           // one line, with the unit
  double min = -1e300, max = 1e300;  // numbers only, and each entry of a list
  std::vector<std::string> choices;  // text only; empty: anything
};
using Schema = std::vector<Key>;

// The keys of every run, whatever its task: seed, threads, eval_every,
// optimizer.schedule, ...
const Schema& run_schema();

// A resolved experiment: every key has a value. Three kinds of tables are special:
//   [optimizer.matrices], [optimizer.rest]  rules: key "rule" and that rule's own keys
//   [optimizer.overrides]                   glob on a parameter's name = "matrix", "rest"
//                                           or a rule
//   [compare.grid], [compare.settings.X]    per optimizer X: learning rates; keys that it
//                                           alone has
// Copies are independent.
class Recipe {
 public:
  // Reads TOML, checks every key against the schema of the task that it names (key
  // "task"). Throws std::invalid_argument with file, line and remedy: not TOML, unknown
  // key (nearest right one), wrong type, out of range, unknown task.
  static Recipe load(const std::string& path_or_name);
  static Recipe parse(std::string_view toml, std::string_view where);

  // A flag's value in text form: set("ppo.clip", "0.1"). Same checks; a list is
  // "1e-4,3e-4", an override set("optimizer.overrides", "*.proj.weight=rest"). A new
  // "optimizer.matrices.rule" keeps the keys that it shares with the old one; a key that
  // was set to something else than its default and that the new rule lacks is an error.
  // Call check() after the last set().
  void set(std::string_view key, std::string_view text);
  // All of them, rules first, so that their order does not matter; then check().
  void set_all(const TextPairs& flags);
  // Combinations that no single key shows, such as a cutoff beside promotion_steps.
  void check() const;
  // Throws std::invalid_argument unless parse(to_toml()) is the same recipe: a run must
  // not leave one that nobody can read. Call it before anything is written.
  void check_file() const;

  bool flag(std::string_view key) const;
  std::int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;  // of an integer key as well
  const std::string& text(std::string_view key) const;
  const std::vector<double>& numbers(std::string_view key) const;

  const std::string& task() const;
  const Rule& matrices() const;
  const Rule& rest() const;
  const TextPairs& overrides() const;
  // [compare.grid]: optimizer -> learning rates.
  const std::map<std::string, std::vector<double>>& grids() const;
  // The flags that turn this recipe into optimizer `label` of its comparison: the rule
  // (named like the label unless [compare.settings.label] has a "rule") and its settings.
  TextPairs variant(const std::string& label) const;

  std::string to_toml()
      const;  // complete and resolved; parse(to_toml()) is the same recipe
  const Schema& schema() const;  // run_schema() and the task's
  std::vector<std::string> key_names()
      const;  // of all keys that set() takes, rules' included
  // One key's value in the text form that set() takes; rules' keys included.
  std::string value_text(std::string_view key) const;

 private:
  struct Data;
  friend class RecipeReader;
  Data& writable();
  std::shared_ptr<Data> data_;
};

// The shortest text that reads back as the same number, always with "." or "e".
std::string number_text(double value);
// A value in the text form that Recipe::set takes.
std::string value_to_text(const Value& value);

}  // namespace pion::lab
