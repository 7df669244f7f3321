// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "lab/run/recipe.h"

namespace pion::apps {

// Parses a subcommand's words. With `recipe_flags`, flags that `app` does not declare go
// there; without, they are errors that name the nearest right one. Returns true when
// --help was asked for and printed. Throws std::invalid_argument.
bool parse(CLI::App& app, const std::vector<std::string>& words,
           lab::TextPairs* recipe_flags);

// "--out", "--seed", ...: what `app` declares.
std::vector<std::string> option_names(const CLI::App& app);

// --unconfined, which lets the lab's Python children run as any program does. A flag and
// no recipe key: no file can say it.
void add_unconfined(CLI::App& app);

// The flag `name` of CLI11 as a recipe flag, if it was given.
void forward(const CLI::App& app, const std::string& name, const std::string& text,
             lab::TextPairs& flags);

}  // namespace pion::apps
