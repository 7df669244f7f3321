// SPDX-License-Identifier: Apache-2.0
// The keys that every run has.
#include "lab/run/recipe_keys.h"
#include "pion/optim/routing.h"

namespace pion::lab {
namespace {

std::vector<std::string> preset_names() {
  std::vector<std::string> names = {""};
  for (const Preset& preset : presets()) names.push_back(preset.name);
  return names;
}

}  // namespace

const Schema& run_schema() {
  static const Schema schema = {
      whole("seed", 1, "of every random generator of the run", 0, 0x1p53),
      whole("threads", 1,
            "of one run; another number changes results in the last digits, by "
            "LibTorch's sums",
            1, 1024),
      whole("log_every", 0,
            "updates between lines of metrics.jsonl; 0: at most 1000 in a run", 0, kMany),
      whole("eval_every", 0, "updates between evaluations; 0: ten in a run", 0, kMany),
      whole("checkpoint_every", 0, "updates between checkpoints; 0: four in a run", 0,
            kMany),
      whole("keep_checkpoints", 2, "newest checkpoints that stay on disk", 1, kMany),
      whole("statistics_every", 0,
            "updates between lines on every matrix; 0: fifty in a run", 0, kMany),
      word("track", "", "mirror metrics.jsonl with this library",
           {"", "tensorboard", "wandb", "trackio"}),
      word("optimizer.preset", "", "published routing in place of the two rules' own",
           preset_names()),
      flag("optimizer.per_head", true, "attention projections in blocks, one per head"),
      word("optimizer.schedule", "constant", "of the learning rates over the run",
           {"constant", "linear", "cosine"}),
      whole("optimizer.warmup_updates", 0,
            "learning rates rise linearly over these updates", 0, kMany),
      real("optimizer.final_lr_factor", 0.0,
           "of the peak rate, at the end of a linear or cosine schedule", 0.0, 1.0),
      word("compare.optimizers", "adamw,muon,pion",
           "rules, or names in [compare.settings]"),
      whole("compare.seeds", 3, "fresh seeds of the final runs: 1, 2, ...", 1, 1000),
      {"compare.tune_seeds",
       std::vector<double>{1001},
       "seeds of the tuning runs",
       0.0,
       0x1p53,
       {}},
      word("compare.lr_key", "optimizer.matrices.lr", "the key that the grid sets"),
  };
  return schema;
}

}  // namespace pion::lab
