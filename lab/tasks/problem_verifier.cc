// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/problem_verifier.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

using Extra = nlohmann::json;

constexpr std::int64_t kLookedAt = 10'000;  // problems of a split: 50 ms
constexpr std::size_t kBytes = 1 << 26;     // of their JSON at most: 0.5 s
constexpr std::size_t kNamed = 1000;        // data sets; reasoning-gym has about 100

// The data sets of reasoning-gym that the first problems name. A worker refuses by itself
// what stands further behind.
std::vector<std::string> data_sets_of(const ProblemSet& problems) {
  std::set<std::string> names;
  std::size_t bytes = 0;
  for (const Split split : {Split::kTrain, Split::kHeldOut})
    for (std::int64_t i = 0; i < std::min(problems.size(split), kLookedAt); ++i) {
      const std::string text = problems.problem(split, i).extra;
      if ((bytes += text.size()) > kBytes) break;
      const Extra extra = try_json<Extra>(text);
      if (!extra.is_object()) continue;
      const auto name = extra.find("dataset");
      if (name != extra.end() && name->is_string() && names.size() < kNamed)
        names.insert(name->get<std::string>());
    }
  return {names.begin(), names.end()};
}

// A text of a file for a message: in quotes, on one line, not long.
std::string quoted(std::string text) {
  constexpr std::size_t kShown = 100;
  if (text.size() > kShown) text = text.substr(0, kShown) + "...";
  return Extra(text).dump(-1, ' ', /*ensure_ascii=*/true,
                          Extra::error_handler_t::replace);
}

}  // namespace

std::unique_ptr<Verifier> make_problem_verifier(const ProblemSet& problems,
                                                const std::string& asked,
                                                const std::string& key,
                                                VerifierOptions options) {
  const std::string name = asked.empty() ? problems.verifier() : asked;
  if (asked.empty() && !is_built_in(name))
    throw std::invalid_argument(
        "problems " + quoted(problems.name()) + ": a file may name the verifier " +
        kBuiltInVerifiers + ", got " + quoted(name) +
        ", which would run code; nothing of it was run. To have a function of yours "
        "judge, name it yourself: --" +
        key + " my_module:score");
  if (name.starts_with("reasoning_gym")) options.data_sets = data_sets_of(problems);
  return make_verifier(name, options);
}

}  // namespace pion::lab
