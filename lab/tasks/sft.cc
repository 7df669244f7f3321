// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/sft.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "lab/data/permutation.h"
#include "lab/run/diverged.h"
#include "lab/tasks/gradient_clip.h"
#include "lab/tasks/micro_batch.h"
#include "lab/tasks/problem_verifier.h"
#include "lab/tasks/setup_digest.h"
#include "lab/tasks/solution_loss.h"
#include "lab/tasks/stopwatch.h"
#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

constexpr std::int64_t kChecked = 100'000;  // problems looked at before the run: < 1 s

std::int64_t updates_of(const SftOptions& options, const ProblemSet& problems) {
  if (options.updates > 0) return options.updates;
  const double examples =
      options.epochs * static_cast<double>(problems.size(Split::kTrain));
  const double updates = std::ceil(examples / static_cast<double>(options.batch_size));
  if (!(updates <= 0x1p40))
    throw std::invalid_argument("sft.epochs: must give at most 2^40 updates, got " +
                                number_text(updates) + "; set sft.updates");
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(updates));
}

}  // namespace

SftTask::SftTask(const SftOptions& options, LanguageSetup setup,
                 const EvaluationOptions& evaluation, const ProblemChoice& problems)
    : options_(options),
      setup_(std::move(setup)),
      began_with_(setup_digest(setup_)),
      verifier_(make_problem_verifier(*setup_.problems, options.verifier, "reward")),
      evaluation_(evaluation, problems, *setup_.problems, *verifier_,
                  setup_.model->config()),
      parameters_(setup_.model->parameters()),
      updates_(updates_of(options, *setup_.problems)) {
  const std::int64_t count = setup_.problems->size(Split::kTrain);
  for (std::int64_t i = 0; i < std::min(count, kChecked); ++i)
    check_problem(setup_.problems->problem(Split::kTrain, i), i);
}

void SftTask::check_problem(const Problem& problem, std::int64_t index) const {
  const std::string where = "sft: problem " + std::to_string(index) + " of \"" +
                            setup_.problems->name() + "\" (\"" + problem.text + "\") ";
  if (problem.solution.empty())
    throw std::invalid_argument(where +
                                "must have a worked solution; prepare the data with one");
  const auto length =
      static_cast<std::int64_t>(problem.prompt.size() + problem.solution.size());
  const std::int64_t context = setup_.model->config().max_position_embeddings;
  if (length > context)
    throw std::invalid_argument(where + "has " + std::to_string(length) +
                                " tokens with its solution, the model's context is " +
                                std::to_string(context) +
                                "; prepare the data with shorter ones");
}

std::vector<Problem> SftTask::next_batch() {
  std::vector<Problem> batch;
  const std::int64_t count = setup_.problems->size(Split::kTrain);
  for (std::int64_t i = 0; i < options_.batch_size; ++i) {
    const std::int64_t index = shuffled_index(drawn_++, count, options_.seed);
    batch.push_back(setup_.problems->problem(Split::kTrain, index));
    if (index >= kChecked) check_problem(batch.back(), index);
  }
  return batch;
}

Json SftTask::update(std::int64_t index, Optimizer& optimizer) {
  Stopwatch watch;
  std::vector<Problem> batch = next_batch(), sorted;
  std::vector<std::int64_t> lengths = solution_lengths(batch);
  for (const std::int64_t row : by_length(lengths)) sorted.push_back(batch[row]);
  lengths = solution_lengths(sorted);
  double labels = 0, tokens = 0, loss = 0;
  for (const Problem& problem : sorted)
    labels += static_cast<double>(problem.solution.size());
  for (const std::int64_t length : lengths) tokens += static_cast<double>(length);

  setup_.model->zero_grad(/*set_to_none=*/true);
  for (const std::vector<std::int64_t>& rows :
       micro_batches(lengths, options_.micro_batch_tokens)) {
    const Generation solutions = worked_solutions(
        std::span(sorted).subspan(static_cast<std::size_t>(rows.front()), rows.size()));
    const torch::Tensor all = torch::arange(static_cast<std::int64_t>(rows.size()));
    // the whole batch's labels below: micro-batches add up to its mean
    const torch::Tensor part =
        -answer_logprobs(*setup_.model, solutions, all, 1.0).sum() / labels;
    part.backward();
    loss += part.item<double>();
  }
  if (!std::isfinite(loss))
    throw Diverged<std::runtime_error>(
        "sft: the loss of update " + std::to_string(index + 1) + " must be finite, got " +
        number_text(loss) + "; lower the learning rates or sft.max_grad_norm");
  const double norm = clip_gradients(parameters_, options_.max_grad_norm);
  optimizer.step();
  const double seconds = watch.lap();
  return {{"loss", loss},
          {"gradient_norm", norm},
          {"tokens", tokens},
          {"tokens_per_second", tokens / std::max(seconds, 1e-9)},
          {"epoch", static_cast<double>(drawn_) /
                        static_cast<double>(setup_.problems->size(Split::kTrain))},
          {"examples", drawn_}};
}

Json SftTask::evaluate() {
  Json json = evaluation_.greedy(*setup_.model);
  json.update(evaluation_.sampled(*setup_.model, nullptr));
  json.update(evaluation_.retention(*setup_.model));
  json.update(evaluation_.solution_loss(*setup_.model));
  return json;
}

void SftTask::save(TensorMap&, Json& state) const {
  state = {{"drawn", drawn_}, {"setup", began_with_}};
}

void SftTask::load(const TensorMap&, const Json& state) {
  const auto drawn = state.find("drawn");
  const auto whole = drawn == state.end() ? std::nullopt : json_integer(*drawn);
  if (!whole || *whole < 0)
    throw std::invalid_argument("sft: the checkpoint's state must hold \"drawn\"");
  require_same_setup(state, began_with_, "sft");
  drawn_ = *whole;
}

namespace {

Schema sft_schema() {
  const SftOptions o;
  Schema schema = {
      {"sft.updates",
       o.updates,
       "optimizer steps; 0: as many as sft.epochs take",
       0,
       0x1p40,
       {}},
      {"sft.epochs", o.epochs, "passes over the training problems", 1e-6, 1e6, {}},
      {"sft.batch_size", o.batch_size, "problems an update", 1, 1 << 20, {}},
      {"sft.micro_batch_tokens",
       o.micro_batch_tokens,
       "tokens in one pass forward and back; 0: the whole batch",
       0,
       0x1p40,
       {}},
      {"sft.max_grad_norm",
       o.max_grad_norm,
       "global gradient norm, before momentum; 0: not clipped",
       0,
       1e9,
       {}},
      {"sft.verifier", o.verifier,
       "of the answers in evaluations: a name; \"\": the problems' own"},
  };
  for (const Schema& more : {model_keys(), problem_keys(), evaluation_keys()})
    schema.insert(schema.end(), more.begin(), more.end());
  return schema;
}

std::unique_ptr<Task> make_sft(const Recipe& r) {
  const SftOptions options{.updates = r.integer("sft.updates"),
                           .epochs = r.number("sft.epochs"),
                           .batch_size = r.integer("sft.batch_size"),
                           .micro_batch_tokens = r.integer("sft.micro_batch_tokens"),
                           .max_grad_norm = r.number("sft.max_grad_norm"),
                           .verifier = r.text("sft.verifier"),
                           .seed = static_cast<std::uint64_t>(r.integer("seed"))};
  const ProblemChoice problems = problem_choice(r);
  const EvaluationOptions evaluation = evaluation_options(r);
  return std::make_unique<SftTask>(
      options, set_up_language(model_choice(r), problems, evaluation.max_new_tokens),
      evaluation, problems);
}

}  // namespace

TaskInfo sft_info() {
  using Source = MetricColumn::Source;
  TaskInfo info;
  info.name = "sft";
  info.description = "supervised fine-tuning of a language model on worked solutions";
  info.schema = sft_schema();
  info.score = "accuracy";
  info.curve = "loss";
  info.progress = "examples";
  info.columns = {{"format_rate", "format rate"},
                  {"sampled_accuracy", "accuracy at T=1"},
                  {"retention_accuracy", "retention"},
                  {"update_rms", "update RMS", Source::kOptimizer},
                  {"held_out_loss", "held-out loss"}};
  info.start = start_recipe;
  info.data = [](const Recipe& r) { return problem_file(r); };
  info.make = make_sft;
  return info;
}

}  // namespace pion::lab
