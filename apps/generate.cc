// SPDX-License-Identifier: Apache-2.0
// `pion generate MODEL --tokens 5,6,7`.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <iostream>

#include "apps/arguments.h"
#include "apps/subcommands.h"
#include "lab/files/printable.h"
#include "lab/files/shown_text.h"
#include "lab/files/thread_limit.h"
#include "lab/models/generation.h"
#include "lab/models/generation_tokenizer.h"
#include "lab/models/model_folder.h"

namespace pion::apps {
namespace {

using Tokens = std::vector<std::int64_t>;

// "5,6,7"
Tokens read_tokens(const std::string& text) {
  Tokens tokens;
  for (const std::string& word : CLI::detail::split(text, ',')) {
    std::int64_t token = 0;
    if (!CLI::detail::lexical_cast(CLI::detail::trim_copy(word), token) || token < 0)
      throw std::invalid_argument("--tokens must be token ids as 5,6,7, got \"" +
                                  lab::shortened(text) + "\"");
    tokens.push_back(token);
  }
  return tokens;
}

std::string join(const Tokens& tokens) {
  std::string text;
  for (const std::int64_t token : tokens)
    text += (text.empty() ? "" : ",") + std::to_string(token);
  return text;
}

// The new tokens of each sample.
std::vector<Tokens> answers(const lab::Generation& generation) {
  std::vector<Tokens> all(generation.tokens.size(0));
  const std::int64_t p = generation.prompt_length, t = generation.mask.size(1);
  for (std::int64_t row = 0; row < std::ssize(all); ++row) {
    const auto* line =
        generation.tokens.const_data_ptr<std::int64_t>() + row * (p + t) + p;
    const auto* real = generation.mask.const_data_ptr<bool>() + row * t;
    for (std::int64_t i = 0; i < t && real[i]; ++i) all[row].push_back(line[i]);
  }
  return all;
}

Tokens encode_chat(lab::Tokenizer& tokenizer, const std::string& text) {
  try {
    return tokenizer.encode_chat(text);
  } catch (const std::invalid_argument& error) {
    const std::string what = error.what();
    const bool lacks = what.find("no chat template") != std::string::npos;
    throw std::invalid_argument(
        what + (lacks ? "; leave --chat out, and put a newline after the prompt" : ""));
  }
}

void refuse_unused(const lab::SamplingOptions& options) {
  const lab::SamplingOptions usual;
  const bool cut = options.top_k != usual.top_k || options.top_p != usual.top_p;
  if (options.temperature == 0 && cut)
    throw std::invalid_argument(
        "--top-k and --top-p have no effect on greedy answers; give --temperature above "
        "0, or leave them out");
}

}  // namespace

int generate(const Invocation& invocation) {
  CLI::App app("Continues a prompt by a language model and prints the new tokens.",
               "pion generate");
  app.footer(
      "Greedy unless --temperature is above 0. Prints a sample's token ids on one line; "
      "with --prompt, its text, in which characters that a terminal obeys are shown as "
      "\\x1b. A prompt is taken as it is: for a model trained on chats give --chat; one "
      "trained on problems without a template was asked with a newline after each, "
      "--prompt $'3+4?\\n'.");
  std::string folder, words, text;
  lab::SamplingOptions options{.max_new_tokens = 64, .temperature = 0};
  std::int64_t samples = 1;
  std::uint64_t seed = 0;
  int threads = 0;
  app.add_option("MODEL", folder, "Hugging Face model folder")->required();
  const auto* by_text =
      app.add_option("--prompt", text, "the prompt, for the folder's tokenizer");
  bool chat = false;
  app.add_flag("--chat", chat, "the prompt is a user's message, by the chat template");
  const auto* by_tokens = app.add_option("--tokens", words, "the prompt: 5,6,7");
  app.add_option("--max-new-tokens", options.max_new_tokens, "at most (64)");
  app.add_option("--temperature", options.temperature, "0: greedy (0)");
  app.add_option("--top-k", options.top_k,
                 "sample from the k likeliest; 0: from all (0)");
  app.add_option("--top-p", options.top_p, "sample from the likeliest of this sum (1)");
  app.add_option("--seed", seed, "of the samples (0)");
  app.add_option("--samples", samples, "answers to the prompt (1)");
  app.add_option("--threads", threads, "0: all cores (0)");
  add_unconfined(app);
  if (parse(app, invocation.words, nullptr)) return kSuccess;
  if (threads < 0)
    throw std::invalid_argument("--threads must be at least 0, got " +
                                std::to_string(threads));
  lab::require_threads(threads, "--threads");
  if (threads > 0) at::set_num_threads(threads);
  if (by_text->empty() == by_tokens->empty())
    throw std::invalid_argument("one of --tokens and --prompt must be given");
  if (chat && by_text->empty())
    throw std::invalid_argument("--chat needs --prompt; token ids are taken as they are");
  refuse_unused(options);
  lab::Tokenizer tokenizer(folder);
  const Tokens prompt = by_text->empty() ? read_tokens(words)
                        : chat           ? encode_chat(tokenizer, text)
                                         : tokenizer.encode(text);
  const auto model = lab::load_model_folder(folder);
  options.stop_tokens = model->config().eos_token_ids;
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const lab::Generation made =
      lab::generate(*model, {prompt}, samples, options, generator);
  for (const Tokens& answer : answers(made))
    std::cout << (by_text->empty() ? join(answer)
                                   : lab::printable(tokenizer.decode(answer)))
              << "\n";
  return kSuccess;
}

}  // namespace pion::apps
