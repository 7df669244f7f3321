// SPDX-License-Identifier: Apache-2.0
#include "lab/models/generation.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/core/PhiloxRNGEngine.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <stdexcept>
#include <string>

#include "lab/models/generation_decoder.h"
#include "lab/models/generation_sampler.h"
#include "lab/run/diverged.h"

namespace pion::lab {
namespace {

using Tokens = std::vector<std::int64_t>;

[[noreturn]] void fail(const std::string& what) {
  throw std::invalid_argument("generate: " + what);
}

void check_options(const SamplingOptions& options, std::int64_t samples,
                   std::int64_t vocab_size) {
  if (samples < 1) fail("samples must be at least 1, got " + std::to_string(samples));
  if (options.max_new_tokens < 1)
    fail("max_new_tokens must be at least 1, got " +
         std::to_string(options.max_new_tokens));
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature))
    fail("temperature must be at least 0, got " + std::to_string(options.temperature));
  if (options.top_k < 0)
    fail("top_k must be at least 0, got " + std::to_string(options.top_k));
  if (!(options.top_p > 0 && options.top_p <= 1))
    fail("top_p must be in (0, 1], got " + std::to_string(options.top_p));
  for (const std::int64_t token : options.stop_tokens)
    if (token < 0 || token >= vocab_size)
      fail("stop tokens must be in [0, " + std::to_string(vocab_size) + "), got " +
           std::to_string(token));
}

void check_prompts(const std::vector<Tokens>& prompts, const SamplingOptions& options,
                   const CausalLmConfig& config) {
  if (prompts.empty()) fail("there must be a prompt, got none");
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const std::string which = "prompt " + std::to_string(i);
    if (prompts[i].empty()) fail(which + " must have a token, got none");
    for (const std::int64_t token : prompts[i])
      if (token < 0 || token >= config.vocab_size)
        fail(which + ": tokens must be in [0, " + std::to_string(config.vocab_size) +
             "), got " + std::to_string(token));
    const std::int64_t total = std::ssize(prompts[i]) + options.max_new_tokens;
    if (total > config.max_position_embeddings)
      fail(which + " and max_new_tokens must have at most " +
           std::to_string(config.max_position_embeddings) +
           " tokens together, the model's max_position_embeddings, got " +
           std::to_string(prompts[i].size()) + " + " +
           std::to_string(options.max_new_tokens));
  }
}

std::uint64_t draw_seed(at::Generator& generator) {
  auto* const own = at::check_generator<at::CPUGeneratorImpl>(generator);
  const std::lock_guard<std::mutex> lock(own->mutex_);
  return own->random64();
}

// Number `step` of row `row`, in [0, 1) with 53 bits.
double uniform(std::uint64_t seed, std::int64_t row, std::int64_t step) {
  at::Philox4_32 engine(seed, static_cast<std::uint64_t>(row),
                        static_cast<std::uint64_t>(step));
  const std::uint64_t high = engine(), low = engine();
  return static_cast<double>(((high << 32) | low) >> 11) * 0x1p-53;
}

std::int64_t padding_token(const CausalLmConfig& config, const SamplingOptions& options) {
  if (config.pad_token_id) return *config.pad_token_id;
  if (!options.stop_tokens.empty()) return options.stop_tokens[0];
  return config.eos_token_ids.empty() ? 0 : config.eos_token_ids[0];
}

// Prompts right-aligned in columns [0, P), answers from column P on.
Generation arrange(std::span<const Tokens> prompts, std::int64_t samples,
                   std::span<const Tokens> answers, std::int64_t pad) {
  std::int64_t p = 0, t = 0;
  for (const Tokens& prompt : prompts) p = std::max<std::int64_t>(p, std::ssize(prompt));
  for (const Tokens& answer : answers) t = std::max<std::int64_t>(t, std::ssize(answer));
  const std::int64_t rows = std::ssize(answers);
  Generation g;
  g.prompt_length = p;
  g.tokens = torch::full({rows, p + t}, pad, torch::kInt64);
  g.starts = torch::empty({rows}, torch::kInt64);
  g.mask = torch::zeros({rows, t}, torch::kBool);
  g.logprobs = torch::zeros({rows, t});
  g.truncated = torch::zeros({rows}, torch::kBool);
  for (std::int64_t row = 0; row < rows; ++row) {
    const Tokens& prompt = prompts[row / samples];
    const Tokens& answer = answers[row];
    auto* line = g.tokens.mutable_data_ptr<std::int64_t>() + row * (p + t);
    std::copy(prompt.begin(), prompt.end(), line + p - std::ssize(prompt));
    std::copy(answer.begin(), answer.end(), line + p);
    g.starts.mutable_data_ptr<std::int64_t>()[row] = p - std::ssize(prompt);
    std::fill_n(g.mask.mutable_data_ptr<bool>() + row * t, answer.size(), true);
  }
  return g;
}

// The loop over tokens; one object per call of generate().
class Sampling {
 public:
  Sampling(const CausalLm& model, const std::vector<Tokens>& prompts,
           std::int64_t samples, const SamplingOptions& options, std::uint64_t seed)
      : options_(options),
        seed_(seed),
        samples_(samples),
        decoder_(model, prompts, samples, options.max_new_tokens),
        answers_(prompts.size() * samples),
        logprobs_(answers_.size()),
        truncated_(answers_.size(), false) {}

  void run() {
    torch::Tensor logits = decoder_.prefill();
    Tokens active, tokens;  // rows that go on, and their latest tokens
    for (std::int64_t row = 0; row < std::ssize(answers_); ++row) active.push_back(row);
    for (std::int64_t step = 0;; ++step) {
      choose(active, logits, step, tokens);
      keep_unfinished(active, tokens, step);
      if (active.empty()) return;
      logits = decoder_.step(active, tokens, step);
    }
  }

  Generation result(const std::vector<Tokens>& prompts, std::int64_t pad) const {
    Generation g = arrange(prompts, samples_, answers_, pad);
    const std::int64_t t = g.mask.size(1);
    for (std::size_t row = 0; row < answers_.size(); ++row) {
      std::copy(logprobs_[row].begin(), logprobs_[row].end(),
                g.logprobs.mutable_data_ptr<float>() + row * t);
      g.truncated.mutable_data_ptr<bool>()[row] = truncated_[row];
    }
    return g;
  }

 private:
  // One token for each active row. At step 0 all rows of a prompt share its logits.
  void choose(const Tokens& active, const torch::Tensor& logits, std::int64_t step,
              Tokens& tokens) {
    const std::int64_t vocab = logits.size(1);
    const float* values = logits.const_data_ptr<float>();
    std::vector<TokenChoice> choices(active.size());
    std::vector<char> bad(active.size(), false);
    at::parallel_for(0, std::ssize(active), 8, [&](std::int64_t begin, std::int64_t end) {
      TokenSampler sampler(options_.temperature, options_.top_k, options_.top_p);
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t line = step == 0 ? active[i] / samples_ : i;
        const std::span<const float> own(values + line * vocab, vocab);
        const double u = sampler.greedy() ? 0.0 : uniform(seed_, active[i], step);
        bad[i] = !sampler.choose(own, u, choices[i]);
      }
    });
    const auto first = std::find(bad.begin(), bad.end(), true);
    if (first != bad.end())
      throw Diverged<std::runtime_error>(
          "generate: logits must be finite, got NaN or infinity at new token " +
          std::to_string(step) + " of row " +
          std::to_string(active[first - bad.begin()]) +
          "; the first value that is not finite is in " + decoder_.find_nonfinite());
    tokens.clear();
    for (std::size_t i = 0; i < active.size(); ++i) {
      tokens.push_back(choices[i].token);
      answers_[active[i]].push_back(choices[i].token);
      logprobs_[active[i]].push_back(choices[i].logprob);
    }
  }

  void keep_unfinished(Tokens& active, Tokens& tokens, std::int64_t step) {
    const auto& stops = options_.stop_tokens;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < active.size(); ++i) {
      if (std::find(stops.begin(), stops.end(), tokens[i]) != stops.end()) continue;
      if (step + 1 == options_.max_new_tokens) {
        truncated_[active[i]] = true;
        continue;
      }
      active[kept] = active[i];
      tokens[kept++] = tokens[i];
    }
    active.resize(kept);
    tokens.resize(kept);
  }

  const SamplingOptions& options_;
  std::uint64_t seed_;
  std::int64_t samples_;
  LmDecoder decoder_;
  std::vector<Tokens> answers_;  // a row each
  std::vector<std::vector<float>> logprobs_;
  std::vector<bool> truncated_;
};

}  // namespace

Generation generate(const CausalLm& model, const std::vector<Tokens>& prompts,
                    std::int64_t samples, const SamplingOptions& options,
                    at::Generator& generator) {
  check_options(options, samples, model.config().vocab_size);
  check_prompts(prompts, options, model.config());
  const std::uint64_t seed = options.temperature > 0 ? draw_seed(generator) : 0;
  Sampling sampling(model, prompts, samples, options, seed);
  sampling.run();
  return sampling.result(prompts, padding_token(model.config(), options));
}

Generation given_answers(std::span<const Tokens> prompts, std::span<const Tokens> answers,
                         std::int64_t pad_token) {
  if (prompts.size() != answers.size())
    throw std::invalid_argument(
        "given_answers: there must be one answer to each prompt, got " +
        std::to_string(answers.size()) + " to " + std::to_string(prompts.size()));
  for (const Tokens& prompt : prompts)
    if (prompt.empty())
      throw std::invalid_argument("given_answers: a prompt must have a token, got none");
  return arrange(prompts, 1, answers, pad_token);
}

}  // namespace pion::lab
