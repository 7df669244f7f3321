// SPDX-License-Identifier: Apache-2.0
// Where recipes lie: a path, or a name in $PION_RECIPES, the source tree or the install
// tree.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace pion::lab {

struct RecipeFile {
  std::string name;  // "planted_low_rank"
  std::filesystem::path path;
  std::string question;  // the first line of its head comment, without "# Question"
};

// Directories, first come first served.
std::vector<std::filesystem::path> recipe_directories();
// Sorted by name; an earlier directory hides a later one's.
std::vector<RecipeFile> recipe_files();
// A file of that path, or the recipe of that name. Throws with the nearest name.
std::filesystem::path find_recipe(const std::string& path_or_name);
// The file's text. Throws if it cannot be read or is larger than 1 MiB.
std::string read_recipe_file(const std::filesystem::path& path);

}  // namespace pion::lab
