// SPDX-License-Identifier: Apache-2.0
// The keys that every run has.
#include "lab/run/recipe.h"
#include "pion/optim/routing.h"

namespace pion::lab {
namespace {

std::vector<std::string> preset_names() {
  std::vector<std::string> names = {""};
  for (const Preset& preset : presets()) names.push_back(preset.name);
  return names;
}

Key count(std::string name, std::int64_t fallback, std::string description, double min,
          double max) {
  return {std::move(name), fallback, std::move(description), min, max, {}};
}

}  // namespace

const Schema& run_schema() {
  constexpr double kMany = 1e12;
  static const Schema schema = {
      count("seed", 1, "of every random generator of the run", 0, 0x1p53),
      count("threads", 1, "of one run; results do not depend on it on one machine", 1,
            1024),
      count("log_every", 0,
            "updates between lines of metrics.jsonl; 0: at most 1000 in a run", 0, kMany),
      count("eval_every", 0, "updates between evaluations; 0: ten in a run", 0, kMany),
      count("checkpoint_every", 0, "updates between checkpoints; 0: four in a run", 0,
            kMany),
      count("keep_checkpoints", 2, "newest checkpoints that stay on disk", 1, kMany),
      count("statistics_every", 0,
            "updates between lines on every matrix; 0: fifty in a run", 0, kMany),
      {"track",
       std::string(),
       "mirror metrics.jsonl with this library",
       -1e300,
       1e300,
       {"", "tensorboard", "wandb", "trackio"}},
      {"optimizer.preset", std::string(),
       "published routing in place of the two rules' own", -1e300, 1e300, preset_names()},
      {"optimizer.per_head", true, "attention projections in blocks, one per head"},
      {"optimizer.schedule",
       std::string("constant"),
       "of the learning rates over the run",
       -1e300,
       1e300,
       {"constant", "linear", "cosine"}},
      count("optimizer.warmup_updates", 0,
            "learning rates rise linearly over these updates", 0, kMany),
      {"optimizer.final_lr_factor",
       0.0,
       "of the peak rate, at the end of a linear or cosine schedule",
       0.0,
       1.0,
       {}},
      {"compare.optimizers", std::string("adamw,muon,pion"),
       "rules, or names in [compare.settings]"},
      count("compare.seeds", 3, "fresh seeds of the final runs: 1, 2, ...", 1, 1000),
      {"compare.tune_seeds",
       std::vector<double>{1001},
       "seeds of the tuning runs",
       0.0,
       0x1p53,
       {}},
      {"compare.lr_key", std::string("optimizer.matrices.lr"),
       "the key that the grid sets"},
  };
  return schema;
}

}  // namespace pion::lab
