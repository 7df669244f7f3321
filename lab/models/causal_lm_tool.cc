// SPDX-License-Identifier: Apache-2.0
// What tests/models_test.py asks of the C++ model: reads {"prompts": [[...]],
// "max_new_tokens": n} from standard input, writes {"logits": one (tokens x vocab) a
// prompt, "answers": greedy ones of all prompts in one batch}; saves the model again.
//
//   lab_language_tool MODEL TARGET
#include <ATen/CPUGeneratorImpl.h>

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "lab/models/generation.h"
#include "lab/models/model_folder.h"

namespace {

using namespace pion::lab;
using Json = nlohmann::json;

Json logits_of(CausalLm& model, const std::vector<std::int64_t>& prompt) {
  const torch::NoGradGuard no_gradients;
  const torch::Tensor logits = model.logits(
      model.hidden(torch::tensor(prompt).unsqueeze(0), torch::tensor({0}))[0]);
  Json lines = Json::array();
  for (std::int64_t i = 0; i < logits.size(0); ++i) {
    const auto* line = logits.const_data_ptr<float>() + i * logits.size(1);
    lines.push_back(std::vector<float>(line, line + logits.size(1)));
  }
  return lines;
}

Json answers_of(CausalLm& model, const std::vector<std::vector<std::int64_t>>& prompts,
                std::int64_t max_new_tokens) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(0);
  const Generation made = generate(model, prompts, 1,
                                   {.max_new_tokens = max_new_tokens,
                                    .temperature = 0,
                                    .stop_tokens = model.config().eos_token_ids},
                                   generator);
  Json answers = Json::array();
  const std::int64_t p = made.prompt_length, t = made.mask.size(1);
  for (std::int64_t row = 0; row < made.tokens.size(0); ++row) {
    Json answer = Json::array();
    for (std::int64_t i = 0; i < t && made.mask[row][i].item<bool>(); ++i)
      answer.push_back(made.tokens[row][p + i].item<std::int64_t>());
    answers.push_back(answer);
  }
  return answers;
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) return 1;
  try {
    at::set_num_threads(1);
    const Json request = Json::parse(std::cin);
    const auto prompts =
        request.at("prompts").get<std::vector<std::vector<std::int64_t>>>();
    const auto model = load_model_folder(words[1]);
    Json reply;
    for (const auto& prompt : prompts)
      reply["logits"].push_back(logits_of(*model, prompt));
    reply["answers"] = answers_of(*model, prompts, request.at("max_new_tokens"));
    save_model_folder(words[2], *model, words[1]);
    std::cout << reply << "\n";
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lab_language_tool: %s\n", error.what());
    return 1;
  }
}
