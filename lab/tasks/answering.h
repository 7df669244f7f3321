// SPDX-License-Identifier: Apache-2.0
// Problems answered by a model and judged.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "lab/data/problem_set.h"
#include "lab/models/generation.h"
#include "lab/rewards/verifier.h"

namespace pion::lab {

// Answers to `samples` times as many rows as problems; row i is to problem i / samples.
struct AnswerBatch {
  Generation generation;
  std::vector<std::string> texts;
  std::vector<Verdict> verdicts;
  double generation_seconds = 0, verification_seconds = 0;

  std::int64_t rows() const { return static_cast<std::int64_t>(texts.size()); }
};

// Throws what generate() throws; std::runtime_error for a reward that is not finite, with
// the problem.
AnswerBatch answer_problems(const CausalLm& model, const Vocabulary& vocabulary,
                            Verifier& verifier, std::span<const Problem> problems,
                            std::int64_t samples, const SamplingOptions& options,
                            at::Generator& generator);

// Sums over answers, so that batches add up; means after `mean()`.
struct AnswerRates {
  double answers = 0;
  double accuracy = 0, format_rate = 0, right_unformatted_rate = 0, reward_mean = 0;
  double length_mean = 0, truncated_fraction = 0;

  void add(const AnswerBatch& batch);
  AnswerRates mean() const;
};

// Tokens of each row's answer.
std::vector<std::int64_t> answer_lengths(const Generation& generation);

// Several generations as one, rows in order. All from the same model.
Generation joined(const std::vector<Generation>& parts);
// Some rows of one.
Generation selected(const Generation& generation, const torch::Tensor& rows);

}  // namespace pion::lab
