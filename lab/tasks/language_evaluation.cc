// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/language_evaluation.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>

#include "lab/tasks/problem_verifier.h"
#include "lab/tasks/solution_loss.h"

namespace pion::lab {
namespace {

constexpr std::uint64_t kEvaluationSeed = 0x5eed0002;  // of answers at temperature 1

std::vector<Problem> first_problems(const ProblemSet& set, std::int64_t count) {
  std::vector<Problem> problems;
  const std::int64_t there = std::min(count, set.size(Split::kHeldOut));
  for (std::int64_t i = 0; i < there; ++i)
    problems.push_back(set.problem(Split::kHeldOut, i));
  return problems;
}

Json answer_json(const AnswerBatch& batch, std::size_t row) {
  const Verdict& verdict = batch.verdicts[row];
  return {{"text", batch.texts[row]},
          {"correct", verdict.correct},
          {"formatted", verdict.formatted},
          {"right_unformatted", verdict.right_unformatted}};
}

}  // namespace

LanguageEvaluation::LanguageEvaluation(const EvaluationOptions& options,
                                       const ProblemChoice& choice,
                                       const ProblemSet& problems, Verifier& verifier,
                                       const CausalLmConfig& model)
    : options_(options), retained_set_(open_retention(options, choice)) {
  require_fit(problems, model, options.max_new_tokens);
  held_out_ = {&problems, &verifier, first_problems(problems, options.problems)};
  if (!retained_set_) return;
  require_tokenizer_fits(*retained_set_, model.vocab_size, {});
  require_fit(*retained_set_, model, options.max_new_tokens);
  retained_verifier_ = make_problem_verifier(*retained_set_, options.retention_verifier,
                                             "eval.retention_verifier");
  retained_ = {retained_set_.get(), retained_verifier_.get(),
               first_problems(*retained_set_, options.retention_problems)};
}

AnswerBatch LanguageEvaluation::answers(CausalLm& model, const Skill& skill,
                                        std::size_t first, std::size_t count,
                                        double temperature, at::Generator& generator) {
  const SamplingOptions sampling{.max_new_tokens = options_.max_new_tokens,
                                 .temperature = temperature,
                                 .stop_tokens = skill.set->stop_tokens()};
  return answer_problems(model, skill.set->vocabulary(), *skill.verifier,
                         std::span(skill.problems).subspan(first, count), 1, sampling,
                         generator);
}

AnswerRates LanguageEvaluation::greedy_rates(CausalLm& model, const Skill& skill) {
  at::Generator unused = at::detail::createCPUGenerator(kEvaluationSeed);
  AnswerRates rates;
  const auto rows = static_cast<std::size_t>(options_.rows);
  for (std::size_t first = 0; first < skill.problems.size(); first += rows)
    rates.add(answers(model, skill, first, std::min(rows, skill.problems.size() - first),
                      0.0, unused));
  return rates.mean();
}

Json LanguageEvaluation::greedy(CausalLm& model) {
  const AnswerRates rates = greedy_rates(model, held_out_);
  return {{"accuracy", rates.accuracy},
          {"format_rate", rates.format_rate},
          {"right_unformatted_rate", rates.right_unformatted_rate},
          {"answer_length", rates.length_mean},
          {"truncated", rates.truncated_fraction}};
}

Json LanguageEvaluation::sampled(CausalLm& model, CausalLm* start) {
  const torch::NoGradGuard no_grad;
  at::Generator generator = at::detail::createCPUGenerator(kEvaluationSeed);
  AnswerRates rates;
  double tokens = 0, surprise = 0, kl = 0;
  const auto rows = static_cast<std::size_t>(options_.rows);
  for (std::size_t first = 0; first < held_out_.problems.size(); first += rows) {
    const std::size_t count = std::min(rows, held_out_.problems.size() - first);
    const AnswerBatch batch = answers(model, held_out_, first, count, 1.0, generator);
    rates.add(batch);
    const Generation& g = batch.generation;
    tokens += g.mask.sum().item<double>();
    surprise -= g.logprobs.sum(at::kDouble).item<double>();
    if (start == nullptr) continue;
    const torch::Tensor all = torch::arange(batch.rows());
    const torch::Tensor d = answer_logprobs(*start, g, all, 1.0) - g.logprobs;
    kl += (d.exp() - d - 1).masked_select(g.mask).sum(at::kDouble).item<double>();
  }
  const AnswerRates mean = rates.mean();
  Json json = {{"sampled_accuracy", mean.accuracy},
               {"sampled_format_rate", mean.format_rate},
               {"entropy", surprise / std::max(tokens, 1.0)}};
  if (start != nullptr) json["kl_to_start"] = kl / std::max(tokens, 1.0);
  return json;
}

double LanguageEvaluation::loss_of(CausalLm& model, const Skill& skill) {
  const torch::NoGradGuard no_grad;
  double sum = 0, labels = 0;
  const auto rows = static_cast<std::size_t>(options_.rows);
  for (std::size_t first = 0; first < skill.problems.size(); first += rows) {
    std::vector<Problem> part;
    for (std::size_t i = first; i < std::min(first + rows, skill.problems.size()); ++i)
      if (!skill.problems[i].solution.empty()) part.push_back(skill.problems[i]);
    if (part.empty()) continue;
    const Generation solutions = worked_solutions(part);
    const torch::Tensor all = torch::arange(static_cast<std::int64_t>(part.size()));
    sum -= answer_logprobs(model, solutions, all, 1.0).sum(at::kDouble).item<double>();
    labels += solutions.mask.sum().item<double>();
  }
  return labels > 0 ? sum / labels : std::nan("");
}

Json LanguageEvaluation::solution_loss(CausalLm& model) {
  const double loss = loss_of(model, held_out_);
  if (std::isnan(loss)) return Json::object();
  return {{"held_out_loss", loss}};
}

Json LanguageEvaluation::retention(CausalLm& model) {
  if (retained_.problems.empty()) return Json::object();
  Json json = {{"retention_accuracy", greedy_rates(model, retained_).accuracy}};
  if (const double loss = loss_of(model, retained_); !std::isnan(loss))
    json["retention_loss"] = loss;
  return json;
}

Json LanguageEvaluation::before_and_after(CausalLm& before, CausalLm& after) {
  const std::size_t count =
      std::min<std::size_t>(options_.shown, held_out_.problems.size());
  if (count == 0) return nullptr;
  at::Generator unused = at::detail::createCPUGenerator(kEvaluationSeed);
  const AnswerBatch old = answers(before, held_out_, 0, count, 0.0, unused);
  const AnswerBatch now = answers(after, held_out_, 0, count, 0.0, unused);
  Json items = Json::array();
  for (std::size_t i = 0; i < count; ++i)
    items.push_back({{"prompt", held_out_.problems[i].text},
                     {"reference", held_out_.problems[i].answer},
                     {"before", answer_json(old, i)},
                     {"after", answer_json(now, i)}});
  return {{"kind", "answers"}, {"items", items}};
}

}  // namespace pion::lab
