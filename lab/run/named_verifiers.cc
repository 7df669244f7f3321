// SPDX-License-Identifier: Apache-2.0
#include "lab/run/named_verifiers.h"

#include <algorithm>
#include <stdexcept>

#include "lab/rewards/confinement.h"
#include "lab/rewards/verifier.h"

namespace pion::lab {
namespace {

// All keys that name verifiers end so: rl.verifier, sft.verifier,
// eval.retention_verifier.
bool names_a_verifier(std::string_view key) { return key.ends_with("verifier"); }

}  // namespace

TextPairs named_verifiers(const Recipe& recipe, const std::vector<std::string>& arms) {
  TextPairs found;
  const auto take = [&](const std::string& key, const std::string& name) {
    if (!names_a_verifier(key) || name.empty() || is_built_in(name)) return;
    if (std::find(found.begin(), found.end(), std::pair(key, name)) == found.end())
      found.emplace_back(key, name);
  };
  for (const Key& key : recipe.schema())
    if (names_a_verifier(key.name)) take(key.name, recipe.text(key.name));
  for (const std::string& arm : arms)
    for (const auto& [key, text] : recipe.variant(arm)) take(key, text);
  return found;
}

std::set<std::string> named_by_user(const TextPairs& flags) {
  std::set<std::string> named;
  for (const auto& flag : flags) named.insert(flag.second);
  return named;
}

void add_handed(std::set<std::string>& named, const std::filesystem::path& handed,
                const std::filesystem::path& saved,
                const std::vector<std::string>& arms) {
  std::error_code error;
  if (std::filesystem::exists(saved, error) &&
      (std::filesystem::equivalent(handed, saved, error) || error))
    return;
  for (const auto& each : named_verifiers(Recipe::load(handed.string()), arms))
    named.insert(each.second);
}

void require_named(const TextPairs& found, const std::set<std::string>& named,
                   const std::filesystem::path& where) {
  for (const auto& [key, name] : found)
    if (!named.contains(name))
      throw std::invalid_argument(where.string() + ": its recipe has " + key + " = \"" +
                                  name +
                                  "\", which runs code; a run's folder may come from "
                                  "elsewhere, so it runs only if you name it again: --" +
                                  key + "=" + name);
}

std::string words_to_continue(const TextPairs& found) {
  std::string words;
  for (const auto& [key, name] : found) words += " --" + key + "=" + name;
  return words + (workers_run_unconfined() ? " --unconfined" : "");
}

}  // namespace pion::lab
