// SPDX-License-Identifier: Apache-2.0
#include "lab/run/compare_resume.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "lab/files/interrupt.h"
#include "lab/run/run_directory.h"
#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

Json read_json(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  Json json = try_json<Json>(text.str());
  if (json.is_discarded() || !json.is_object())
    throw std::invalid_argument(path.string() + ": is no JSON object; it is damaged");
  return json;
}

void refuse_other_resume(const fs::path& out, const fs::path& recipe_file) {
  const auto refuse = [](const std::string& what) {
    throw std::invalid_argument("--resume: " + what);
  };
  const std::string name = out.string();
  const RunPaths paths{out};
  if (!fs::exists(out))
    refuse("no comparison directory " + name + "; leave --resume out to start one");
  if (!is_comparison(out) && fs::exists(paths.metrics()))
    refuse(name + " is a single run; continue it with pion train --resume --out " +
           shell_word(name));
  if (!fs::exists(paths.recipe())) return;
  const Recipe own = Recipe::load(paths.recipe().string());
  const Recipe named = Recipe::load(recipe_file.string());
  if (own.task() != named.task())
    refuse("the comparison in " + name + " is of task \"" + own.task() +
           "\", the recipe of \"" + named.task() + "\"");
  if (own.to_toml() != named.to_toml())
    refuse("the comparison in " + name + " was started from another recipe than " +
           recipe_file.string() +
           "; leave the recipe out to continue it, or use another --out");
}

FirstStart first_start(const fs::path& out) {
  const fs::path path = out / "compare.json";
  const Json json = read_json(path);
  const auto stored = json.find("flags");
  if (stored == json.end() || !stored->is_array())
    throw std::invalid_argument(
        path.string() + ": lacks \"flags\"; it is of another version, use another --out");
  FirstStart first;
  for (const Json& flag : *stored) {
    const auto member = [&](const char* name) {
      const auto at = flag.is_object() ? flag.find(name) : flag.end();
      if (!flag.is_object() || at == flag.end() || !at->is_string())
        throw std::invalid_argument(path.string() +
                                    ": \"flags\" is damaged; use another --out");
      return at->get<std::string>();
    };
    first.flags.emplace_back(member("key"), member("value"));
  }
  if (const auto name = json.find("recipe"); name != json.end() && name->is_string())
    first.recipe = name->get<std::string>();
  return first;
}

void refuse_new_flags(const fs::path& out, const TextPairs& first,
                      const TextPairs& given) {
  for (const auto& flag : given)
    if (std::find(first.begin(), first.end(), flag) == first.end())
      throw std::invalid_argument("--" + flag.first + " " + flag.second +
                                  ": the comparison in " + out.string() +
                                  " was started without it; leave it out, or use another "
                                  "--out");
}

bool wait_for_earlier(const fs::path& run) {
  for (bool told = false; is_locked(run); told = true) {
    if (!told) {
      std::printf("waiting for %s, which another process is in\n", run.c_str());
      std::fflush(stdout);
    }
    if (InterruptGuard::interrupted()) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return true;
}

}  // namespace pion::lab
