// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/rlvr.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "lab/data/permutation.h"
#include "lab/run/diverged.h"
#include "lab/tasks/control_task.h"
#include "lab/tasks/equal_rms.h"
#include "lab/tasks/gradient_clip.h"
#include "lab/tasks/micro_batch.h"
#include "lab/tasks/problem_verifier.h"
#include "lab/tasks/setup_digest.h"
#include "lab/tasks/stopwatch.h"
#include "pion/optim/json_parser.h"

namespace pion::lab {

using torch::Tensor;

struct RlvrTask::Progress {
  Metrics sums;      // of Estimator::loss
  Metrics prepared;  // of Estimator::prepare
  double steps = 0, skipped_steps = 0, clipped_steps = 0, gradient_norm = 0;
  double trained_answers = 0;
  double kl_to_start = std::nan("");
  double logprob_seconds = 0, backward_seconds = 0, optimizer_seconds = 0;
};

namespace {

constexpr std::int64_t kIdleUpdates = 10;  // chance alone is not silent for so long

// Prompt and answer of each row, in tokens.
std::vector<std::int64_t> row_lengths(const Generation& generation) {
  std::vector<std::int64_t> lengths = answer_lengths(generation);
  const Tensor starts = generation.starts.cpu().contiguous();
  for (std::size_t row = 0; row < lengths.size(); ++row)
    lengths[row] += generation.prompt_length - starts.data_ptr<std::int64_t>()[row];
  return lengths;
}

// `rows` in parts of at most `budget` tokens.
std::vector<Tensor> parts_of(const Tensor& rows, const std::vector<std::int64_t>& lengths,
                             std::int64_t budget) {
  std::vector<std::int64_t> chosen;
  const auto* index = rows.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < rows.numel(); ++i) chosen.push_back(lengths[index[i]]);
  std::vector<Tensor> parts;
  for (const auto& part : micro_batches(chosen, budget))
    parts.push_back(rows.narrow(0, part.front(), static_cast<std::int64_t>(part.size())));
  return parts;
}

[[noreturn]] void fail(std::int64_t index, const std::exception& error) {
  const std::string what =
      "rlvr: update " + std::to_string(index + 1) + ": " + error.what();
  if (is_divergence(error)) throw Diverged<std::runtime_error>(what);
  throw std::runtime_error(what);
}

}  // namespace

RlvrTask::RlvrTask(const RlvrOptions& options, LanguageSetup setup,
                   const EvaluationOptions& evaluation, const ProblemChoice& problems)
    : options_(options),
      setup_(std::move(setup)),
      began_with_(setup_digest(setup_)),
      start_(frozen_copy(*setup_.model)),
      verifier_(make_problem_verifier(*setup_.problems, options.verifier, "reward",
                                      options.verification)),
      evaluation_(evaluation, problems, *setup_.problems, *verifier_,
                  setup_.model->config()),
      estimator_(options.estimator),
      parameters_(setup_.model->parameters()),
      generator_(seeded_generator(static_cast<std::int64_t>(options.seed))) {
  const auto named = setup_.model->named_parameters();
  for (const Route& route : route(*setup_.model).routes) {
    if (!is_matrix_role(route.role)) continue;
    hidden_names_.push_back(route.parameter.name);
    hidden_.push_back(named[route.parameter.name]);
  }
}

Tensor RlvrTask::logprobs(CausalLm& model, const Generation& generation) {
  const torch::NoGradGuard no_grad;
  std::vector<Tensor> parts;
  const Tensor all = torch::arange(generation.mask.size(0));
  for (const Tensor& rows :
       parts_of(all, row_lengths(generation), options_.micro_batch_tokens))
    parts.push_back(answer_logprobs(model, generation, rows, options_.temperature));
  return torch::cat(parts);
}

// Mean k3 over tokens, of all answers if the loss has the reference anyway.
double RlvrTask::kl_to_start(const GatheredRollout& gathered) {
  const torch::NoGradGuard no_grad;
  const Rollout& r = gathered.rollout;
  const std::int64_t rows = gathered.rows();
  Tensor d, mask = r.mask;
  if (r.logp_ref.defined()) {
    d = r.logp_ref - r.logp_old;
  } else {
    const std::int64_t count = std::min(options_.kl_rows, rows);
    if (count == 0) return std::nan("");
    const Tensor some = torch::arange(count) * (rows / count);
    mask = mask.index_select(0, some);
    d = logprobs(*start_, selected(gathered.generation, some)) -
        r.logp_old.index_select(0, some);
  }
  return (d.exp() - d - 1).masked_select(mask).mean().item<double>();
}

void RlvrTask::complete(GatheredRollout& gathered) {
  if (options_.old_logprobs == OldLogprobs::kTraining)
    gathered.rollout.logp_old = logprobs(*setup_.model, gathered.generation);
  if (options_.needs_reference())
    gathered.rollout.logp_ref = logprobs(*start_, gathered.generation);
}

void RlvrTask::backward(const GatheredRollout& gathered, const PreparedBatch& batch,
                        const Tensor& rows, const Tensor& minibatch, Metrics& sums) {
  for (const Tensor& part :
       parts_of(rows, row_lengths(gathered.generation), options_.micro_batch_tokens)) {
    const Tensor logp =
        answer_logprobs(*setup_.model, gathered.generation, part, options_.temperature);
    estimator_.loss(logp, gathered.rollout, batch, part, minibatch, sums).backward();
  }
}

void RlvrTask::apply(Optimizer& optimizer, Progress& progress) {
  Stopwatch watch;
  const double norm = clip_gradients(parameters_, options_.max_grad_norm);
  progress.gradient_norm += norm;
  progress.clipped_steps += options_.max_grad_norm > 0 && norm > options_.max_grad_norm;
  progress.steps += 1;
  update_rms_.clear();
  optimizer.collect_statistics(true);
  if (options_.unit_rms) {
    const std::vector<double> sizes = equal_rms_step(optimizer, hidden_);
    for (std::size_t i = 0; i < sizes.size(); ++i)
      update_rms_[hidden_names_[i]] = sizes[i];
  } else {
    optimizer.step();
    for (const ParameterStatistics& each : optimizer.statistics())
      update_rms_[each.name] = each.update.update_rms;
  }
  progress.optimizer_seconds += watch.lap();
}

void RlvrTask::step(const GatheredRollout& gathered, const PreparedBatch& batch,
                    const Tensor& minibatch, Optimizer& optimizer, Progress& progress) {
  Stopwatch watch;
  const Tensor rows = minibatch.masked_select(batch.signal.index_select(0, minibatch));
  if (rows.numel() == 0) {
    progress.skipped_steps += 1;
    return;
  }
  setup_.model->zero_grad(/*set_to_none=*/true);
  backward(gathered, batch, rows, minibatch, progress.sums);
  // what was left out adds 0 to the loss, but is part of the step
  progress.sums["steps"] +=
      1.0 - static_cast<double>(rows.numel()) / static_cast<double>(minibatch.numel());
  progress.trained_answers += static_cast<double>(rows.numel());
  progress.backward_seconds += watch.lap();
  apply(optimizer, progress);
}

void RlvrTask::learn(GatheredRollout& gathered, Optimizer& optimizer,
                     Progress& progress) {
  Stopwatch watch;
  complete(gathered);
  progress.kl_to_start = kl_to_start(gathered);
  progress.logprob_seconds = watch.lap();
  const PreparedBatch batch = estimator_.prepare(gathered.rollout);
  progress.prepared = batch.metrics;
  const std::int64_t parts = std::min(options_.minibatches, gathered.rows());
  if (batch.no_signal) {
    progress.skipped_steps = static_cast<double>(options_.epochs * parts);
    return;
  }
  for (std::int64_t epoch = 0; epoch < options_.epochs; ++epoch) {
    const Tensor order = torch::randperm(gathered.rows(), generator_, torch::kInt64);
    // sorted: answers to one problem are neighbours and share its computation
    for (const Tensor& part : order.tensor_split(parts))
      step(gathered, batch, std::get<0>(part.sort()), optimizer, progress);
  }
}

void RlvrTask::look_for_signal(const GatheredRollout& g, const Progress& progress) {
  const auto whole = [](double count) {
    return std::to_string(static_cast<std::int64_t>(count));
  };
  if (g.graded_groups > 0 && g.rates.accuracy == 0 && !said_graded_) {
    said_graded_ = true;
    warn("rlvr: no answer was right, so dynamic sampling rejects all groups, though in " +
         whole(g.graded_groups) + " of " + whole(g.groups) +
         " the rewards differ; rl.filter_metric = \"reward\" trains on those");
  }
  idle_updates_ = progress.steps > 0 ? 0 : idle_updates_ + 1;
  const bool all_rejected = g.rows() == 0;
  if (said_idle_ || (idle_updates_ < kIdleUpdates && !all_rejected)) return;
  said_idle_ = true;
  warn(all_rejected ? "rlvr: dynamic sampling found no group to train on among " +
                          whole(g.groups) + ", so this update trained nothing"
                    : "rlvr: the last " + std::to_string(idle_updates_) +
                          " updates trained nothing: answers to each problem get equal "
                          "rewards");
}

Json RlvrTask::update(std::int64_t index, Optimizer& optimizer) {
  if (setup_.provisional)
    throw std::logic_error("rlvr: the start policy must be made before the first update");
  Progress progress;
  update_rms_.clear();
  try {
    const std::int64_t count = setup_.problems->size(Split::kTrain);
    GatheredRollout gathered = gather_rollout(
        *setup_.model, *setup_.problems, *verifier_, options_,
        [&] {
          return setup_.problems->problem(Split::kTrain,
                                          shuffled_index(drawn_++, count, options_.seed));
        },
        generator_);
    answers_ += static_cast<std::int64_t>(gathered.rates.answers);
    if (gathered.rows() > 0)
      learn(gathered, optimizer, progress);
    else
      progress.skipped_steps =
          static_cast<double>(options_.epochs * options_.minibatches);
    look_for_signal(gathered, progress);
    return metrics(gathered, progress);
  } catch (const std::logic_error& error) {
    fail(index, error);
  } catch (const std::runtime_error& error) {
    fail(index, error);
  }
}

Json RlvrTask::metrics(const GatheredRollout& g, const Progress& p) const {
  const AnswerRates& rates = g.rates;
  const double steps = std::max(p.steps, 1.0);
  const double tokens = rates.answers * rates.length_mean;
  const double seconds = g.generation_seconds + g.verification_seconds +
                         p.logprob_seconds + p.backward_seconds + p.optimizer_seconds;
  Json json = {{"answers", answers_},
               {"reward_mean", rates.reward_mean},
               {"accuracy", rates.accuracy},
               {"format_rate", rates.format_rate},
               {"right_unformatted_rate", rates.right_unformatted_rate},
               {"entropy", g.entropy},
               {"kl_to_start", p.kl_to_start},
               {"answer_length", rates.length_mean},
               {"truncated", rates.truncated_fraction},
               {"zero_spread_groups", g.zero_spread_groups / std::max(g.groups, 1.0)},
               {"steps", p.steps},
               {"skipped_steps", p.skipped_steps},
               {"trained_answers", p.trained_answers}};
  if (options_.estimator.dynamic_sampling) {
    json["rejected_groups"] = g.rejected_groups;
    json["refills"] = g.refills;
  }
  if (p.steps > 0) {
    double rms = 0;
    for (const std::string& name : hidden_names_)
      if (const auto at = update_rms_.find(name); at != update_rms_.end())
        rms += at->second / static_cast<double>(hidden_names_.size());
    json["update_rms"] = rms;
    json["gradient_norm"] = p.gradient_norm / steps;
    json["clipped_steps"] = p.clipped_steps / steps;
  }
  for (const auto& [name, value] : p.prepared) json[name] = value;
  const Metrics means = estimator_metrics(p.sums);
  for (const auto& [name, value] : means)
    json[name == "k3_old" ? "kl_to_old" : name] = value;
  json["verifier_failures"] = verifier_->failures();
  json["tokens_per_second"] = tokens / std::max(seconds, 1e-9);
  json["seconds_generation"] = g.generation_seconds;
  json["seconds_verification"] = g.verification_seconds;
  json["seconds_logprobs"] = p.logprob_seconds;
  json["seconds_backward"] = p.backward_seconds;
  json["seconds_optimizer"] = p.optimizer_seconds;
  if (p.steps > 0) {
    const auto kl = means.find("kl_loss");
    json["loss"] = means.at("policy_loss") + (kl == means.end() ? 0.0 : kl->second);
  }
  return json;
}

Json RlvrTask::evaluate() {
  if (setup_.provisional)
    throw std::logic_error("rlvr: the start policy must be made before an evaluation");
  Json json = evaluation_.greedy(*setup_.model);
  json.update(evaluation_.sampled(*setup_.model, start_.get()));
  json.update(evaluation_.retention(*setup_.model));
  json.update(evaluation_.solution_loss(*setup_.model));
  if (options_.spectra) json.update(band_signal());
  return json;
}

Json RlvrTask::sample() { return evaluation_.before_and_after(*start_, *setup_.model); }

// The optimizer's own statistics are of its own step, and of an earlier update if this
// one took none.
void RlvrTask::correct_statistics(std::vector<ParameterStatistics>& statistics) const {
  if (update_rms_.empty()) statistics.clear();
  for (ParameterStatistics& each : statistics)
    if (const auto at = update_rms_.find(each.name); at != update_rms_.end())
      each.update.update_rms = at->second;
}

void RlvrTask::save(TensorMap& tensors, Json& state) const {
  tensors["generator"] = generator_.get_state();
  state = {{"drawn", drawn_},
           {"answers", answers_},
           {"baseline", estimator_.baseline()},
           {"setup", began_with_}};
}

void RlvrTask::load(const TensorMap& tensors, const Json& state) {
  const auto count = [&](const char* name) {
    const auto at = state.find(name);
    const auto whole = at == state.end() ? std::nullopt : json_integer(*at);
    if (!whole || *whole < 0)
      throw std::invalid_argument("rlvr: the checkpoint's state must hold \"" +
                                  std::string(name) + "\", a whole number");
    return *whole;
  };
  require_same_setup(state, began_with_, "rlvr");
  const auto baseline = state.find("baseline");
  if (baseline == state.end() || !baseline->is_number())
    throw std::invalid_argument("rlvr: the checkpoint's state must hold \"baseline\"");
  const std::int64_t drawn = count("drawn"), answers = count("answers");
  restore_generator(generator_, tensors, "rlvr");
  drawn_ = drawn, answers_ = answers;
  estimator_.set_baseline(baseline->get<double>());
}

}  // namespace pion::lab
