// SPDX-License-Identifier: Apache-2.0
// From the words of a command line to recipe keys.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lab/run/recipe.h"

namespace pion::lab {

// The words of one subcommand, parted: those that it declares itself and those meant for
// the recipe, as ("ppo.clip", "0.1"). A recipe flag without a value has the text "true".
struct Words {
  std::vector<std::string> own;
  TextPairs recipe;
};

// `options`: the subcommand's own, "--out" -> whether it takes a value.
Words part_words(const std::vector<std::string>& words,
                 const std::map<std::string, bool>& options);

// Flags to recipe keys, aliases resolved. Underscores and dashes are one. Throws
// std::invalid_argument: unknown flag (nearest right one, `options` among them), flags
// that contradict one another.
//
//   --optimizer X      the rule X, with [compare.settings.X]
//   --use-muon         optimizer.matrices.rule = "muon"; `--use-muon false`: "adamw"
//   --muon-lr, --muon-momentum, --muon-nesterov   optimizer.matrices.*, only with Muon
//   --aux-adam-lr      optimizer.rest.lr
//   --lr               optimizer.matrices.lr and optimizer.rest.lr, without Muon
//   --max-grad-norm    ppo.max_grad_norm
//   --total-timesteps  total_timesteps
//   --d-model, --num-layers, --num-heads          model.*
//   --episodes         eval_episodes
//   --wandb            track = "wandb"
TextPairs resolve_flags(const Recipe& recipe, const TextPairs& flags,
                        const std::vector<std::string>& options = {});

// What --help says on them.
std::string alias_help();

}  // namespace pion::lab
