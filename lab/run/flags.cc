// SPDX-License-Identifier: Apache-2.0
#include "lab/run/flags.h"

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "lab/files/shown_text.h"
#include "lab/run/recipe_data.h"

namespace pion::lab {
namespace {

constexpr std::string_view kOverrideFlag = "optimizer.overrides";

struct Alias {
  const char* flag;
  const char* key;  // "": decided in resolve_flags; from a dot on: of any table
  const char* help;
};

constexpr Alias kAliases[] = {
    {"optimizer", "",
     "NAME: this rule for the matrices, or a name in [compare.settings]"},
    {"use-muon", "", "Muon for the matrices; false: AdamW"},
    {"muon-lr", "optimizer.matrices.lr", "only with Muon"},
    {"muon-momentum", "optimizer.matrices.momentum", "only with Muon"},
    {"muon-nesterov", "optimizer.matrices.nesterov", "only with Muon"},
    {"aux-adam-lr", "optimizer.rest.lr", "AdamW's, for what is no hidden matrix"},
    {"lr", "", "optimizer.matrices.lr and optimizer.rest.lr; not with Muon"},
    {"max-grad-norm", ".max_grad_norm", "of the task's own table"},
    {"total-timesteps", "total_timesteps", ""},
    {"d-model", "model.d_model", ""},
    {"num-layers", "model.num_layers", ""},
    {"num-heads", "model.num_heads", ""},
    {"episodes", "eval_episodes", "of one evaluation"},
    {"reward", ".verifier", "my_module:score, or a verifier's name"},
    {"spectra", "rl.spectra", "measure the gradient's signal by singular bands"},
    {"wandb", "", "track = \"wandb\""},
};

std::string dashed(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

bool is_switch(const std::string& name) {
  return name == "use-muon" || name == "muon-nesterov" || name == "spectra" ||
         name == "wandb";
}

bool is_truth(const std::string& word) { return word == "true" || word == "false"; }

const Alias* find_alias(const std::string& name) {
  const auto* at =
      std::find_if(std::begin(kAliases), std::end(kAliases),
                   [&](const Alias& each) { return each.flag == dashed(name); });
  return at == std::end(kAliases) ? nullptr : at;
}

// "*.proj.weight=rest" -> "*.proj.weight".
std::string glob_of(const std::string& override) {
  return override.substr(0, std::min(override.rfind('='), override.size()));
}

bool truth(const std::string& flag, const std::string& text) {
  if (!is_truth(text))
    fail("--" + flag + ": must be true or false, got \"" + shortened(text) + "\"");
  return text == "true";
}

// The recipe's own key that a flag names, with dashes for underscores allowed.
std::optional<std::string> find_key(const Recipe& recipe, const std::string& flag) {
  for (const std::string& name : recipe.key_names())
    if (name == flag || dashed(name) == dashed(flag)) return name;
  // rules of the other tables and grids are known by their tables
  for (const char* table : {"optimizer.matrices.", "optimizer.rest.", "compare.grid."})
    if (flag.rfind(table, 0) == 0) return flag;
  return std::nullopt;
}

// One command line's flags, with the aliases that depend on each other.
class FlagReader {
 public:
  FlagReader(const Recipe& recipe, const TextPairs& flags,
             const std::vector<std::string>& options)
      : recipe_(recipe), flags_(flags), options_(options) {}

  TextPairs read() {
    choose_rule();
    for (const auto& [flag, text] : flags_) {
      const Alias* alias = find_alias(flag);
      if (alias == nullptr)
        plain(flag, text);
      else if (alias->key[0] != '\0')
        aliased(*alias, text);
      else if (std::string(alias->flag) == "lr")
        both_rates(text);
      else if (std::string(alias->flag) == "wandb" && truth("wandb", text))
        add("track", "wandb", "--wandb");
    }
    return result_;
  }

 private:
  void add(const std::string& key, const std::string& text, const std::string& flag) {
    for (const auto& [name, value] : result_)
      if (name == key && value != text &&
          (key != kOverrideFlag || glob_of(value) == glob_of(text)))
        fail(flag + ": sets " + key + " to " + shortened(text) + ", another flag to " +
             shortened(value) + "; leave one out");
    if (text == "true" && !takes_true(key)) {
      const std::string now = recipe_.value_text(key);
      fail(flag + ": needs a value" + (now.empty() ? "" : ", as " + flag + " " + now));
    }
    result_.emplace_back(key, text);
  }

  // "true" stands for no value at all: wrong where the key is a number or has choices.
  bool takes_true(const std::string& key) const {
    for (const Key& each : recipe_.schema()) {
      if (each.name != key) continue;
      if (std::holds_alternative<std::string>(each.fallback))
        return each.choices.empty() || std::find(each.choices.begin(), each.choices.end(),
                                                 "true") != each.choices.end();
      return std::holds_alternative<bool>(each.fallback);
    }
    return !key.ends_with(".lr");
  }

  // --optimizer and --use-muon first: other flags depend on them.
  void choose_rule() {
    std::string rule(rule_name(recipe_.matrices()));
    for (const auto& [flag, text] : flags_) {
      if (dashed(flag) == "optimizer") {
        for (const auto& [key, value] : recipe_.variant(text)) {
          add(key, value, "--optimizer " + text);
          if (key == "optimizer.matrices.rule") rule = value;
        }
      } else if (dashed(flag) == "use-muon") {
        rule = truth("use-muon", text) ? "muon" : "adamw";
        add("optimizer.matrices.rule", rule, "--use-muon " + text);
      } else if (flag == "optimizer.matrices.rule") {
        rule = text;
      }
    }
    muon_ = rule == "muon";
  }

  void aliased(const Alias& alias, const std::string& text) {
    const std::string flag = std::string("--") + alias.flag;
    if (flag.rfind("--muon-", 0) == 0 && !muon_)
      fail(flag +
           ": needs --use-muon, or a recipe whose [optimizer.matrices] rule is \"muon\"");
    if (flag == "--aux-adam-lr" && rule_name(recipe_.rest()) != "adamw")
      fail(flag + ": needs [optimizer.rest] rule = \"adamw\", got \"" +
           std::string(rule_name(recipe_.rest())) + "\"");
    const std::string_view key = alias.key;
    const bool of_any_table = key.starts_with('.');
    const std::vector<std::string> names = recipe_.key_names();
    const auto name = std::find_if(names.begin(), names.end(), [&](const auto& each) {
      return each == key || (of_any_table && each.ends_with(key));
    });
    if (name == names.end() && !key.starts_with("optimizer."))
      fail(flag + ": task \"" + recipe_.task() + "\" has no key " +
           (alias.key + of_any_table));
    add(name == names.end() ? alias.key : *name, text, flag);
  }

  void both_rates(const std::string& text) {
    if (muon_)
      fail(
          "--lr: Muon and AdamW need rates of their own; use --muon-lr and "
          "--aux-adam-lr");
    for (const char* key : {"optimizer.matrices.lr", "optimizer.rest.lr"})
      add(key, text, "--lr");
  }

  void plain(const std::string& flag, const std::string& text) {
    if (flag == kOverrideFlag) return add(flag, text, "--" + flag);
    if (const std::optional<std::string> key = find_key(recipe_, flag))
      return add(*key, text, "--" + flag);
    std::vector<std::string> names = recipe_.key_names();
    for (const Alias& alias : kAliases) names.emplace_back(alias.flag);
    for (const std::string& option : options_)
      names.push_back(option.substr(option.find_first_not_of('-')));
    std::string near = suggestion(flag, names);
    if (const std::size_t quote = near.find('"'); quote != std::string::npos)
      near.insert(quote + 1, "--");
    fail("unknown flag \"--" + shortened(flag) + "\"" + near);
  }

  const Recipe& recipe_;
  const TextPairs& flags_;
  const std::vector<std::string>& options_;
  TextPairs result_;
  bool muon_ = false;
};

}  // namespace

Words part_words(const std::vector<std::string>& words,
                 const std::map<std::string, bool>& options) {
  Words parted;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const auto option = options.find(name);
    if (word.rfind("--", 0) != 0 || word.size() == 2 || option != options.end()) {
      parted.own.push_back(word);
      const bool takes_next =
          option != options.end() && option->second && equals == std::string::npos;
      if (takes_next && i + 1 < words.size()) parted.own.push_back(words[++i]);
      continue;
    }
    const std::string flag = name.substr(2);
    if (equals != std::string::npos) {
      parted.recipe.emplace_back(flag, word.substr(equals + 1));
      continue;
    }
    const bool has_next = i + 1 < words.size() && words[i + 1].rfind("--", 0) != 0;
    const bool takes_next =
        has_next && (!is_switch(dashed(flag)) || is_truth(words[i + 1]));
    parted.recipe.emplace_back(flag, takes_next ? words[++i] : "true");
  }
  return parted;
}

TextPairs resolve_flags(const Recipe& recipe, const TextPairs& flags,
                        const std::vector<std::string>& options) {
  return FlagReader(recipe, flags, options).read();
}

std::string alias_help() {
  std::string text =
      "Every recipe key is a flag (--optimizer.matrices.lr 1e-2). Shorter names:\n";
  for (const Alias& alias : kAliases) {
    std::string line = std::string("  --") + alias.flag;
    line.resize(22, ' ');
    std::string says = alias.key;
    if (alias.help[0] != '\0')
      says += (says.empty() ? "" : ", ") + std::string(alias.help);
    text += line + says + "\n";
  }
  return text;
}

}  // namespace pion::lab
