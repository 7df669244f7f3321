// SPDX-License-Identifier: Apache-2.0
// What a language model can do on held-out problems. Draws from generators of its own.
#pragma once

#include <memory>
#include <vector>

#include "lab/run/task.h"
#include "lab/tasks/answering.h"
#include "lab/tasks/language_setup.h"

namespace pion::lab {

class LanguageEvaluation {
 public:
  // Throws std::invalid_argument if retention's problems do not fit the model. `problems`
  // and `verifier` must live as long.
  LanguageEvaluation(const EvaluationOptions& options, const ProblemChoice& choice,
                     const ProblemSet& problems, Verifier& verifier,
                     const CausalLmConfig& model);

  // Greedy: accuracy, format_rate, right_unformatted_rate, answer_length, truncated.
  Json greedy(CausalLm& model);
  // One answer a problem at temperature 1: sampled_accuracy, sampled_format_rate, entropy
  // (nats a token, from the sampled tokens' log-probabilities) and, with `start`,
  // kl_to_start: mean over tokens of k3 = e^d - d - 1, d = log pi_start - log pi.
  Json sampled(CausalLm& model, CausalLm* start);
  // held_out_loss: nats a token of the worked solutions; {} where there are none.
  Json solution_loss(CausalLm& model);
  // retention_accuracy and retention_loss on the other skills; {} without them.
  Json retention(CausalLm& model);

  // {"kind": "answers", ...} of the first problems, or null; see Task::sample.
  Json before_and_after(CausalLm& before, CausalLm& after);

 private:
  struct Skill {
    const ProblemSet* set;
    Verifier* verifier;
    std::vector<Problem> problems;
  };
  AnswerBatch answers(CausalLm& model, const Skill& skill, std::size_t first,
                      std::size_t count, double temperature, at::Generator& generator);
  AnswerRates greedy_rates(CausalLm& model, const Skill& skill);
  double loss_of(CausalLm& model, const Skill& skill);  // NaN without solutions

  EvaluationOptions options_;
  std::unique_ptr<ProblemSet> retained_set_;
  std::unique_ptr<Verifier> retained_verifier_;
  Skill held_out_, retained_;
};

}  // namespace pion::lab
