// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/answering.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "lab/files/shown_text.h"
#include "lab/tasks/stopwatch.h"

namespace pion::lab {
namespace {

std::vector<std::string> decoded(const Generation& generation,
                                 const Vocabulary& vocabulary) {
  const std::vector<std::int64_t> lengths = answer_lengths(generation);
  const torch::Tensor tokens = generation.tokens.cpu().contiguous();
  const std::int64_t width = tokens.size(1);
  std::vector<std::string> texts;
  for (std::size_t row = 0; row < lengths.size(); ++row) {
    const std::int64_t* begin = tokens.data_ptr<std::int64_t>() +
                                static_cast<std::int64_t>(row) * width +
                                generation.prompt_length;
    texts.push_back(
        vocabulary.decode(std::span(begin, static_cast<std::size_t>(lengths[row]))));
  }
  return texts;
}

// (rows, length) with `fill` before or after to make it (rows, before + length + after).
torch::Tensor padded(const torch::Tensor& x, std::int64_t before, std::int64_t after,
                     const torch::Scalar& fill) {
  return torch::constant_pad_nd(x, {before, after}, fill);
}

}  // namespace

AnswerBatch answer_problems(const CausalLm& model, const Vocabulary& vocabulary,
                            Verifier& verifier, std::span<const Problem> problems,
                            std::int64_t samples, const SamplingOptions& options,
                            at::Generator& generator) {
  std::vector<std::vector<std::int64_t>> prompts;
  for (const Problem& problem : problems)
    prompts.emplace_back(problem.prompt.begin(), problem.prompt.end());
  AnswerBatch batch;
  Stopwatch watch;
  batch.generation = generate(model, prompts, samples, options, generator);
  batch.generation_seconds = watch.lap();
  batch.texts = decoded(batch.generation, vocabulary);
  std::vector<Attempt> attempts;
  for (std::size_t row = 0; row < batch.texts.size(); ++row) {
    const Problem& problem = problems[row / static_cast<std::size_t>(samples)];
    attempts.push_back({problem.text, batch.texts[row], problem.answer, problem.extra});
  }
  batch.verdicts = verifier.judge(attempts);
  for (std::size_t row = 0; row < attempts.size(); ++row)
    if (!std::isfinite(batch.verdicts[row].reward))
      throw std::runtime_error("the verifier's reward must be finite, got " +
                               std::to_string(batch.verdicts[row].reward) + " for \"" +
                               shortened(batch.texts[row]) + "\", an answer to \"" +
                               shortened(attempts[row].prompt) + "\"");
  batch.verification_seconds = watch.lap();
  return batch;
}

void AnswerRates::add(const AnswerBatch& batch) {
  for (const Verdict& verdict : batch.verdicts) {
    answers += 1;
    accuracy += verdict.correct;
    format_rate += verdict.formatted;
    right_unformatted_rate += verdict.right_unformatted;
    reward_mean += verdict.reward;
  }
  length_mean += batch.generation.mask.sum().item<double>();
  truncated_fraction += batch.generation.truncated.sum().item<double>();
}

AnswerRates AnswerRates::mean() const {
  const double n = std::max(answers, 1.0);
  return {
      answers,         accuracy / n,    format_rate / n,       right_unformatted_rate / n,
      reward_mean / n, length_mean / n, truncated_fraction / n};
}

std::vector<std::int64_t> answer_lengths(const Generation& generation) {
  const torch::Tensor lengths = generation.mask.sum(1).cpu().contiguous();
  const auto* begin = lengths.data_ptr<std::int64_t>();
  return {begin, begin + lengths.numel()};
}

Generation joined(const std::vector<Generation>& parts) {
  if (parts.size() == 1) return parts.front();
  std::int64_t prompt = 0, answer = 0;
  for (const Generation& part : parts) {
    prompt = std::max(prompt, part.prompt_length);
    answer = std::max(answer, part.mask.size(1));
  }
  std::vector<torch::Tensor> tokens, starts, mask, logprobs, truncated;
  for (const Generation& part : parts) {
    const std::int64_t before = prompt - part.prompt_length;
    const std::int64_t after = answer - part.mask.size(1);
    tokens.push_back(padded(part.tokens, before, after, 0));
    starts.push_back(part.starts + before);
    mask.push_back(padded(part.mask, 0, after, false));
    logprobs.push_back(padded(part.logprobs, 0, after, 0));
    truncated.push_back(part.truncated);
  }
  return {torch::cat(tokens),   torch::cat(starts),    torch::cat(mask),
          torch::cat(logprobs), torch::cat(truncated), prompt};
}

Generation selected(const Generation& g, const torch::Tensor& rows) {
  return {g.tokens.index_select(0, rows),    g.starts.index_select(0, rows),
          g.mask.index_select(0, rows),      g.logprobs.index_select(0, rows),
          g.truncated.index_select(0, rows), g.prompt_length};
}

}  // namespace pion::lab
