// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/setup_digest.h"

#include <algorithm>
#include <stdexcept>

#include "lab/files/fnv.h"

namespace pion::lab {
namespace {

constexpr std::int64_t kProblems = 256, kWeights = 16;

std::string digest(const ProblemSet& problems) {
  Fnv hash;
  for (const Split split : {Split::kTrain, Split::kHeldOut}) {
    const std::int64_t size = problems.size(split), count = std::min(size, kProblems);
    hash.add(std::to_string(size));
    for (std::int64_t i = 0; i < count; ++i) {
      const Problem problem = problems.problem(split, size / count * i);
      for (const std::int32_t token : problem.prompt) {
        hash.add(" ");
        hash.add(std::to_string(token));
      }
      hash.add("\n");
      hash.add(problem.answer);
      hash.add("\n");
    }
  }
  return hash.text();
}

std::string digest(const CausalLm& model) {
  Fnv hash;
  for (const auto& item : model.named_parameters()) {
    const torch::Tensor flat = item.value().detach().flatten();
    const torch::Tensor some =
        flat.slice(0, 0, std::min(kWeights, flat.numel())).to(torch::kFloat).contiguous();
    hash.add(item.key());
    hash.add({static_cast<const char*>(some.const_data_ptr()), some.nbytes()});
  }
  return hash.text();
}

}  // namespace

Json setup_digest(const LanguageSetup& setup) {
  return {{"problems", digest(*setup.problems)},
          {"model", setup.from_folder ? digest(*setup.model) : ""}};
}

void require_same_setup(const Json& state, const Json& digest, const std::string& task) {
  const auto saved = state.find("setup");
  if (saved == state.end() || !saved->is_object()) return;
  for (const auto& [key, what] : {std::pair{"problems", "problems of data.source"},
                                  std::pair{"model", "weights in model.folder"}})
    if (const auto at = saved->find(key); at != saved->end() && *at != digest[key])
      throw std::invalid_argument(task + ": the " + what +
                                  " are not those that the run began with; put them back "
                                  "to continue it, or start another run with another "
                                  "--out");
}

}  // namespace pion::lab
