// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/language_setup.h"

#include <stdexcept>

#include "lab/files/durable_file.h"
#include "lab/models/model_folder.h"
#include "lab/run/start_policy.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

std::shared_ptr<CausalLm> fresh_model(const ModelChoice& choice,
                                      const ProblemSet& problems) {
  CausalLmConfig config = choice.fresh;
  config.vocab_size = problems.vocabulary().size();
  config.eos_token_ids = problems.stop_tokens();
  config.pad_token_id = problems.pad_token();
  return std::make_shared<CausalLm>(config);
}

// The policy of another recipe, or what will have its shapes.
std::shared_ptr<CausalLm> start_model(const ModelChoice& choice, LanguageSetup& setup) {
  const fs::path folder = start_policy_folder(choice.start, choice.threads);
  if (!folder.empty()) {
    setup.tokenizer = folder;
    return load_model_folder(folder, choice.dtype);
  }
  setup.provisional = true;
  const Recipe recipe = Recipe::load(choice.start);
  ModelChoice earlier = model_choice(recipe);
  earlier.threads = choice.threads;
  if (!earlier.start.empty()) return start_model(earlier, setup);
  if (!earlier.folder.empty()) return load_model_folder(earlier.folder, choice.dtype);
  return fresh_model(earlier, *open_problems(problem_choice(recipe)));
}

}  // namespace

void require_fit(const ProblemSet& problems, const CausalLmConfig& config,
                 std::int64_t max_new_tokens) {
  const std::int64_t longest = problems.longest_prompt();
  if (longest + max_new_tokens > config.max_position_embeddings)
    throw std::invalid_argument(
        "problems \"" + problems.name() + "\": the longest prompt (" +
        std::to_string(longest) + " tokens) and " + std::to_string(max_new_tokens) +
        " new tokens must fit into the model's context of " +
        std::to_string(config.max_position_embeddings) +
        "; lower max_new_tokens, or prepare the data with shorter prompts");
  for (const std::int64_t token : problems.stop_tokens())
    if (token < 0 || token >= config.vocab_size)
      throw std::invalid_argument(
          "problems \"" + problems.name() + "\": stop token " + std::to_string(token) +
          " must be in the model's vocabulary of " + std::to_string(config.vocab_size));
}

LanguageSetup set_up_language(const ModelChoice& model, const ProblemChoice& problems,
                              std::int64_t max_new_tokens) {
  LanguageSetup setup;
  setup.problems = open_problems(problems);
  if (!model.folder.empty()) {
    setup.tokenizer = model.folder;
    setup.from_folder = true;
    setup.model = load_model_folder(model.folder, model.dtype);
  } else if (!model.start.empty()) {
    setup.model = start_model(model, setup);
  } else {
    setup.model = fresh_model(model, *setup.problems);
  }
  const CausalLmConfig& config = setup.model->config();
  require_tokenizer_fits(*setup.problems, config.vocab_size, setup.tokenizer);
  require_fit(*setup.problems, config, max_new_tokens);
  if (!problems.tokenizer.empty()) {
    if (!fs::exists(fs::path(problems.tokenizer) / "tokenizer.json"))
      throw std::invalid_argument("data.tokenizer: " + problems.tokenizer +
                                  " has no tokenizer.json");
    require_tokenizer_fits(*setup.problems, config.vocab_size, problems.tokenizer);
    setup.tokenizer = problems.tokenizer;
  }
  setup.model->set_gradient_checkpointing(model.gradient_checkpointing);
  return setup;
}

std::shared_ptr<CausalLm> frozen_copy(const CausalLm& model) {
  const torch::NoGradGuard no_grad;
  auto copy = std::make_shared<CausalLm>(model.config(), /*draw=*/false);
  const auto from = model.named_parameters();
  for (auto& item : copy->named_parameters()) {
    item.value().copy_(from[item.key()]);
    item.value().set_requires_grad(false);
  }
  return copy;
}

AttentionShape attention_shape_of(const CausalLmConfig& config) {
  return {.heads = config.num_attention_heads,
          .kv_heads = config.num_key_value_heads,
          .head_dim = config.head_dim};
}

void export_language_model(const fs::path& folder, const LanguageSetup& setup) {
  fs::create_directories(folder);
  const bool characters =
      setup.tokenizer.empty() && setup.problems->name() == "arithmetic";
  if (characters)
    for (const auto& [name, text] : arithmetic_tokenizer_files())
      replace_file(folder / name, text);
  save_model_folder(folder, *setup.model, setup.tokenizer);
}

}  // namespace pion::lab
