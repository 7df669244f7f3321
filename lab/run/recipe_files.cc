// SPDX-License-Identifier: Apache-2.0
#include "lab/run/recipe_files.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "lab/files/installed_folder.h"
#include "pion/optim/rule.h"

namespace pion::lab {
namespace fs = std::filesystem;
namespace {

// "# Question  Does it?" -> "Does it?"; without that word the first comment line.
std::string question_of(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("# SPDX", 0) == 0) continue;
    if (line.empty() || line.front() != '#') break;
    std::string text = line.substr(1);
    text.erase(0, std::min(text.find_first_not_of(' '), text.size()));
    if (text.rfind("Question", 0) == 0) text.erase(0, 8);
    text.erase(0, std::min(text.find_first_not_of(" :"), text.size()));
    if (!text.empty()) return text;
  }
  return "";
}

}  // namespace

std::vector<fs::path> recipe_directories() {
  std::vector<fs::path> directories;
  if (const char* list = std::getenv("PION_RECIPES")) {
    std::istringstream parts(list);
    for (std::string part; std::getline(parts, part, ':');)
      if (!part.empty()) directories.emplace_back(part);
  }
  const fs::path installed = installed_folder();
  directories.push_back(installed.empty() ? PION_SOURCE_RECIPES : installed / "recipes");
  return directories;
}

std::vector<RecipeFile> recipe_files() {
  std::vector<RecipeFile> found;
  for (const fs::path& directory : recipe_directories()) {
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(directory, error)) {
      if (entry.path().extension() != ".toml") continue;
      const std::string name = entry.path().stem().string();
      const bool hidden =
          std::any_of(found.begin(), found.end(),
                      [&](const RecipeFile& each) { return each.name == name; });
      if (!hidden) found.push_back({name, entry.path(), question_of(entry.path())});
    }
  }
  std::sort(found.begin(), found.end(),
            [](const RecipeFile& a, const RecipeFile& b) { return a.name < b.name; });
  return found;
}

fs::path find_recipe(const std::string& path_or_name) {
  std::error_code error;
  if (fs::is_regular_file(path_or_name, error)) return path_or_name;
  // a run directory holds its recipe
  if (fs::is_regular_file(fs::path(path_or_name) / "recipe.toml", error))
    return fs::path(path_or_name) / "recipe.toml";
  std::vector<std::string> names;
  for (const RecipeFile& file : recipe_files()) {
    if (file.name == path_or_name) return file.path;
    names.push_back(file.name);
  }
  const std::string near = nearest_name(path_or_name, names);
  throw std::invalid_argument(
      "recipe: no file and no recipe of the name \"" + path_or_name + "\"" +
      (near.empty() ? "; " : "; did you mean \"" + near + "\"? ") +
      "`pion recipes` lists them");
}

std::string read_recipe_file(const fs::path& path) {
  constexpr std::uintmax_t kLargest = 1 << 20;  // bytes; recipes have a few thousand
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  if (error || !file) throw std::invalid_argument("recipe: cannot read " + path.string());
  if (size > kLargest)
    throw std::invalid_argument("recipe: " + path.string() +
                                " must be a text of at most 1 MiB, got " +
                                std::to_string(size) + " bytes");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace pion::lab
