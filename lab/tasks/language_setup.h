// SPDX-License-Identifier: Apache-2.0
// The model, the problems and their verifier, checked against one another.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "lab/data/problem_set.h"
#include "lab/models/causal_lm.h"
#include "lab/rewards/verifier.h"
#include "lab/run/task.h"
#include "lab/tasks/language_options.h"

namespace pion::lab {

struct LanguageSetup {
  std::unique_ptr<ProblemSet> problems;
  std::shared_ptr<CausalLm> model;
  std::filesystem::path
      tokenizer;             // folder whose tokenizer files belong to the model; ""
  bool from_folder = false;  // the model is that of model.folder
  bool provisional = false;  // the start policy does not exist yet: shapes only
};

// Throws std::invalid_argument: a folder that cannot be loaded, a vocabulary or tokenizer
// that does not fit, a context too short for the longest prompt and `max_new_tokens`.
// Fresh weights are drawn from torch's default generator.
LanguageSetup set_up_language(const ModelChoice& model, const ProblemChoice& problems,
                              std::int64_t max_new_tokens);

// Throws std::invalid_argument with the remedy unless prompts and answers of `problems`
// fit into the model.
void require_fit(const ProblemSet& problems, const CausalLmConfig& config,
                 std::int64_t max_new_tokens);

// A copy whose weights nothing changes.
std::shared_ptr<CausalLm> frozen_copy(const CausalLm& model);

AttentionShape attention_shape_of(const CausalLmConfig& config);

// The model as a Hugging Face folder with its tokenizer.
void export_language_model(const std::filesystem::path& folder,
                           const LanguageSetup& setup);

}  // namespace pion::lab
