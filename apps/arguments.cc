// SPDX-License-Identifier: Apache-2.0
#include "apps/arguments.h"

#include <algorithm>
#include <iostream>
#include <map>
#include <stdexcept>

#include "lab/rewards/confinement.h"
#include "lab/run/flags.h"
#include "pion/optim/rule.h"

namespace pion::apps {

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

bool parse(CLI::App& app, const std::vector<std::string>& words,
           lab::TextPairs* recipe_flags) {
  std::map<std::string, bool> options;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames())
      options["--" + name] = option->get_items_expected_max() > 0;
  lab::Words parted = lab::part_words(words, options);
  if (recipe_flags != nullptr) {
    *recipe_flags = parted.recipe;
  } else if (!parted.recipe.empty()) {
    const std::string flag = "--" + parted.recipe.front().first;
    const std::string near = nearest_name(flag, option_names(app));
    throw std::invalid_argument(
        "unknown flag \"" + flag + "\"" +
        (near.empty() ? "; see --help" : "; did you mean \"" + near + "\"?"));
  }
  std::reverse(parted.own.begin(), parted.own.end());  // as CLI11 wants them
  try {
    app.parse(parted.own);
  } catch (const CLI::CallForHelp&) {
    std::cout << app.help();
    return true;
  } catch (const CLI::ParseError& error) {
    throw std::invalid_argument(std::string(error.what()) + "; see --help");
  }
  return false;
}

void add_unconfined(CLI::App& app) {
  app.add_flag_callback(
      "--unconfined", [] { lab::let_workers_run_unconfined(); },
      "let Python that judges or tokenizes write files and use the network");
}

void forward(const CLI::App& app, const std::string& name, const std::string& text,
             lab::TextPairs& flags) {
  if (app.count("--" + name) > 0) flags.emplace_back(name, text);
}

}  // namespace pion::apps
