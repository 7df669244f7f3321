// SPDX-License-Identifier: Apache-2.0
// Who may name code: functions that judge answers, and scorers that evaluate them.
//
// A recipe that is handed to a command speaks for the user, and so does a flag. A recipe
// that lies in the folder of a run may have come from elsewhere with it: a function that
// it names runs only if the user names it again.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "lab/run/recipe.h"

namespace pion::lab {

// (key, verifier) of all that are not built in: of the recipe itself and of the settings
// of `arms`, optimizers of its comparison.
TextPairs named_verifiers(const Recipe& recipe,
                          const std::vector<std::string>& arms = {});

// What a user has named: the values of the flags as they were given.
std::set<std::string> named_by_user(const TextPairs& flags);
// And the verifiers of the recipe in `handed`, which he handed to the command, with those
// of its arms; unless that is `saved` itself, a run's own.
void add_handed(std::set<std::string>& named, const std::filesystem::path& handed,
                const std::filesystem::path& saved,
                const std::vector<std::string>& arms = {});

// Throws std::invalid_argument, with the flag that is missing, for the first of `found`
// that is not in `named`. `where` is the run's folder.
void require_named(const TextPairs& found, const std::set<std::string>& named,
                   const std::filesystem::path& where);

// " --rl.verifier=mine:score --unconfined": what a command that continues such a run
// needs.
std::string words_to_continue(const TextPairs& found);

}  // namespace pion::lab
