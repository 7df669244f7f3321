// SPDX-License-Identifier: Apache-2.0
// Keys [model], [data] and [eval] of the language-model tasks.
#pragma once

#include <cstdint>
#include <string>

#include "lab/data/arithmetic.h"
#include "lab/models/causal_lm_config.h"
#include "lab/run/recipe.h"

namespace pion::lab {

// Where a task's model comes from: a folder, the policy of another recipe, or fresh
// weights.
struct ModelChoice {
  std::string folder;    // Hugging Face model folder; "": none
  std::string start;     // an SFT recipe, trained once and kept; "": none
  CausalLmConfig fresh;  // otherwise; vocabulary and stop tokens are the problems'
  std::string dtype;     // "float32", "bfloat16"; "": as stored
  bool gradient_checkpointing = false;
  std::int64_t threads = 1;  // with which the policy of `start` was trained

  bool is_fresh() const { return folder.empty() && start.empty(); }
};

// Which problems.
struct ProblemChoice {
  std::string source = "arithmetic";  // or a file of `python -m pion.prepare`
  ArithmeticOptions arithmetic;
  std::string tokenizer;  // folder whose tokenizer files are saved with the model; "":
                          // the model's own
};

struct EvaluationOptions {
  std::int64_t problems = 256;       // held-out ones, the first
  std::int64_t rows = 256;           // answered at once
  std::int64_t max_new_tokens = 48;  // of an answer
  std::int64_t shown = 8;            // whose answers are kept before and after
  std::string retention;             // kinds of arithmetic or a file; "": not measured
  std::int64_t retention_problems = 128;
  std::string retention_verifier;  // of theirs; "": their own
};

Schema model_keys();
Schema problem_keys();
Schema evaluation_keys();

// Throw std::invalid_argument for keys that the others leave without effect.
ModelChoice model_choice(const Recipe& recipe);
ProblemChoice problem_choice(const Recipe& recipe);
EvaluationOptions evaluation_options(const Recipe& recipe);

// model.start, which excludes model.folder: throws std::invalid_argument for both.
std::string start_recipe(const Recipe& recipe);

// "dd?dd,d+d" to its parts.
std::vector<std::string> split_kinds(const std::string& list);

// data.source if it is a file, else "".
std::string problem_file(const Recipe& recipe);

// The problems of a choice. Throws std::invalid_argument.
std::unique_ptr<ProblemSet> open_problems(const ProblemChoice& choice);
// Those that measure retention; null without them.
std::unique_ptr<ProblemSet> open_retention(const EvaluationOptions& evaluation,
                                           const ProblemChoice& choice);

}  // namespace pion::lab
