// SPDX-License-Identifier: Apache-2.0
// What a resumed comparison takes over from its first start.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "lab/run/recipe.h"

namespace pion::lab {

// Throws std::invalid_argument unless `out` can be resumed: it must exist, be no single
// run, and, where it has a recipe, be of the one in `recipe_file`.
void refuse_other_resume(const std::filesystem::path& out,
                         const std::filesystem::path& recipe_file);

struct FirstStart {
  std::string recipe;  // its name; "" if unknown
  TextPairs flags;
};

// From compare.json. Throws std::invalid_argument.
FirstStart first_start(const std::filesystem::path& out);
// Throws std::invalid_argument for a flag `given` now that is not among the `first`.
void refuse_new_flags(const std::filesystem::path& out, const TextPairs& first,
                      const TextPairs& given);

// Waits while a process is in the run's directory: the child of a comparison that was
// killed saves, then ends. Says so once. False after a signal (see InterruptGuard).
bool wait_for_earlier(const std::filesystem::path& run);

// A JSON object from a file. Throws std::invalid_argument if it is none.
nlohmann::ordered_json read_json(const std::filesystem::path& path);

}  // namespace pion::lab
