// SPDX-License-Identifier: Apache-2.0
// The run loop.
#include "lab/run/run.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <optional>
#include <set>
#include <stdexcept>

#include "lab/files/durable_file.h"
#include "lab/files/interrupt.h"
#include "lab/files/json_text.h"
#include "lab/files/plain_name.h"
#include "lab/files/shown_text.h"
#include "lab/report/report.h"
#include "lab/run/checkpoint.h"
#include "lab/run/diverged.h"
#include "lab/run/metric_columns.h"
#include "lab/run/metrics_log.h"
#include "lab/run/progress.h"
#include "lab/run/run_directory.h"
#include "lab/run/start_policy.h"
#include "lab/run/tracking.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

// `key` of the recipe, or as often as gives `in_a_run` of them.
std::int64_t interval(const Recipe& recipe, const char* key, std::int64_t total,
                      std::int64_t in_a_run) {
  const std::int64_t chosen = recipe.integer(key);
  return chosen > 0 ? chosen
                    : std::max<std::int64_t>(1, (total + in_a_run - 1) / in_a_run);
}

Json statistics_json(const std::vector<ParameterStatistics>& statistics,
                     const std::set<std::string>& hidden) {
  Json list = Json::array();
  for (const ParameterStatistics& each : statistics) {
    const UpdateStatistics& update = each.update;
    list.push_back({{"name", each.name},
                    {"rule", rule_name(each.rule)},
                    {"hidden", hidden.contains(each.name)},
                    {"update_rms", update.update_rms},
                    {"directions_passed", update.directions_passed},
                    {"directions", update.directions},
                    {"stable_rank", update.stable_rank},
                    {"sigma_max", update.sigma_max},
                    {"energy_kept", update.energy_kept},
                    {"head_spread", update.head_spread},
                    {"gradient_norm", update.gradient_norm},
                    {"skipped", update.skipped}});
  }
  return list;
}

class TrainingRun {
 public:
  TrainingRun(const Recipe& recipe, const RunOptions& options)
      : recipe_(recipe),
        options_(options),
        paths_{options.out},
        info_(find_task(recipe.task())) {}

  RunOutcome run() {
    const std::string& track = recipe_.text("track");
    if (!options_.resume) refuse_existing(options_.out);
    recipe_.check_file();
    if (!track.empty()) check_tracker(track);
    if (options_.report) check_report_assets();
    const InterruptGuard guard;
    make_start_policy(recipe_, static_cast<int>(recipe_.integer("threads")),
                      options_.quiet);
    experiment_ = make_experiment(recipe_);
    total_ = experiment_.task->updates();
    first_weights_ = weights_digest(experiment_.task->model());
    for (const Route& route : experiment_.routing.routes)
      if (is_matrix_role(route.role)) hidden_.insert(route.parameter.name);
    if (InterruptGuard::interrupted())
      throw Interrupted("interrupted before it began; run the same command again");
    lock_.emplace(options_.out);
    // another start may have had the lock until now
    if (!options_.resume) refuse_existing(options_.out);
    clean_temporaries(paths_.root);
    clean_temporaries(paths_.model());
    if (fs::exists(paths_.result())) return already_complete();
    start();
    std::optional<Tracker> tracker;
    if (!track.empty()) tracker.emplace(track, fs::absolute(options_.out));
    const bool complete = guarded(
        [this] { return done_or_diverged([this] { return loop(); }) && finish(); });
    if (tracker)
      if (const std::string problem = tracker->finish(); !problem.empty())
        progress_->say(problem);
    if (complete && options_.report) report();
    return {complete, step_, score_, ending_};
  }

 private:
  // A run that was killed before its report gets it now.
  RunOutcome already_complete() {
    progress_.emplace(info_, total_, total_, options_.quiet);
    progress_->say("complete already: " + paths_.result().string());
    if (options_.report && !fs::exists(paths_.report())) report();
    return {true, total_, 0, read_ending(paths_.result())};
  }

  // Writes what describes the run, or loads the newest checkpoint.
  void start() {
    refuse_link(paths_.checkpoints());
    refuse_link(paths_.root / "model");
    clean_checkpoints(paths_.checkpoints());
    std::uint64_t metrics_bytes = 0;
    if (const std::vector<std::int64_t> steps = checkpoint_steps(paths_.checkpoints());
        !steps.empty()) {
      const fs::path path =
          paths_.checkpoints() / ("step_" + std::to_string(steps.back()));
      const Checkpoint checkpoint = read_checkpoint(path, info_.name);
      if (checkpoint.head.step > total_)
        throw std::invalid_argument(
            path.string() + ": is of step " + std::to_string(checkpoint.head.step) +
            ", the run has " + std::to_string(total_) + " updates");
      load_checkpoint(checkpoint, *experiment_.task, *experiment_.optimizer);
      step_ = saved_ = checkpoint.head.step;
      metrics_bytes = checkpoint.head.metrics_bytes;
      seconds_before_ = checkpoint.head.wall_seconds;
    }
    if (!fs::exists(paths_.recipe())) replace_file(paths_.recipe(), recipe_.to_toml());
    fs::create_directories(paths_.checkpoints());
    replace_file(paths_.routing(), experiment_.routing.to_toml());
    if (!fs::exists(paths_.environment()))
      replace_file(paths_.environment(), environment_json(recipe_, options_.command));
    log_.emplace(paths_.metrics(), metrics_bytes);
    progress_.emplace(info_, step_, total_, options_.quiet);
    if (options_.resume) {
      log({{"kind", "resume"}, {"step", step_}, {"command", options_.command}});
      progress_->say("resumed at update " + std::to_string(step_) + " of " +
                     std::to_string(total_));
    }
    experiment_.optimizer->set_warning_sink(
        [this](const std::string& message) { warn(message); });
    experiment_.task->set_warning_sink(
        [this](const std::string& message) { warn(message); });
  }

  // Leaves the reason in the metrics when `work` throws.
  template <class F>
  bool guarded(F work) {
    try {
      return work();
    } catch (const c10::Error& error) {
      log_error(error.what_without_backtrace());
      throw;
    } catch (const std::exception& error) {
      log_error(error.what());
      throw;
    }
  }

  void log(const Json& line) {
    lock_->check();
    log_->write(line);
  }

  void log_error(const std::string& message) noexcept {
    try {
      log_->write(
          {{"kind", "error"}, {"step", step_}, {"message", shortened(message, 4000)}});
    } catch (const std::exception&) {  // a full disk may be the reason itself
    }
  }

  void warn(const std::string& message) {
    log({{"kind", "warning"}, {"step", step_ + 1}, {"message", message}});
    progress_->warn(message);
  }

  double wall_seconds() const {
    return seconds_before_ +
           std::chrono::duration<double>(std::chrono::steady_clock::now() - began_)
               .count();
  }

  // True when all updates are done, false when interrupted.
  bool loop() {
    const std::int64_t log_every = interval(recipe_, "log_every", total_, 1000);
    const std::int64_t eval_every = interval(recipe_, "eval_every", total_, 10);
    const std::int64_t checkpoint_every =
        interval(recipe_, "checkpoint_every", total_, 4);
    const std::int64_t statistics_every =
        interval(recipe_, "statistics_every", total_, 50);
    began_ = std::chrono::steady_clock::now();
    if (interrupted()) return false;
    if (step_ == 0) evaluate(false);
    while (step_ < total_) {
      const std::int64_t next = step_ + 1;
      const bool statistics = next % statistics_every == 0 || next == 1 || next == total_;
      experiment_.optimizer->collect_statistics(statistics);
      const Json metrics = update();
      step_ = next;
      progress_->update(step_, metrics);
      if (step_ % log_every == 0 || step_ == 1 || step_ == total_)
        log({{"kind", "update"},
             {"step", step_},
             {"wall_seconds", wall_seconds()},
             {"lr_factor", experiment_.optimizer->lr_factor()},
             {"metrics", metrics}});
      if (statistics) log(statistics_line());
      if (step_ % eval_every == 0 && step_ < total_) evaluate(false);
      if (step_ % checkpoint_every == 0 || step_ == total_) save();
      if (interrupted()) return false;
    }
    return true;
  }

  // True after a signal, with what was done saved.
  bool interrupted() {
    if (!InterruptGuard::interrupted() || step_ == total_) return false;
    if (step_ > 0) save();
    return true;
  }

  Json statistics_line() const {
    std::vector<ParameterStatistics> statistics = experiment_.optimizer->statistics();
    experiment_.task->correct_statistics(statistics);
    return {{"kind", "optimizer"},
            {"step", step_},
            {"parameters", statistics_json(statistics, hidden_)}};
  }

  Json update() {
    Optimizer& optimizer = *experiment_.optimizer;
    const bool scheduled = recipe_.text("optimizer.schedule") != "constant" ||
                           recipe_.integer("optimizer.warmup_updates") > 0;
    if (!scheduled) return experiment_.task->update(step_, optimizer);
    const double factor = schedule_factor(recipe_, step_, total_);
    optimizer.set_lr_factor(factor);
    Json metrics = experiment_.task->update(step_, optimizer);
    if (optimizer.lr_factor() != factor)
      throw std::invalid_argument(
          "[optimizer]: task \"" + info_.name +
          "\" sets its own learning-rate schedule; "
          "set optimizer.schedule = \"constant\" and optimizer.warmup_updates = 0");
    return metrics;
  }

  Json evaluate(bool final) {
    const Json metrics = experiment_.task->evaluate();
    log({{"kind", "evaluation"},
         {"step", step_},
         {"final", final},
         {"metrics", metrics}});
    progress_->evaluation(step_, metrics);
    return metrics;
  }

  void save() {
    if (saved_ == step_) return;
    lock_->check();
    log_->sync();
    save_checkpoint(paths_.checkpoints(),
                    {info_.name, step_, log_->bytes(), wall_seconds()}, *experiment_.task,
                    *experiment_.optimizer, recipe_.integer("keep_checkpoints"));
    saved_ = step_;
  }

  // True if done, also where the policy's numbers are no longer finite and `work` throws
  // for that: there the run ends, it does not fail.
  template <class F>
  bool done_or_diverged(F work) {
    try {
      return work();
    } catch (const std::exception& error) {
      if (!is_divergence(error) && weights_finite(experiment_.task->model())) throw;
      const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
      ending_ = {EndingKind::kDiverged,
                 torch_error ? torch_error->what_without_backtrace() : error.what()};
      return true;
    }
  }

  // The final evaluation, or {} if the run diverged so far that there is none.
  Json last_evaluation() {
    score_ = EndingSigns::kUnknown;
    Json metrics = Json::object();
    if (ending_.kind == EndingKind::kComplete)
      done_or_diverged([&] {
        metrics = evaluate(true);
        return true;
      });
    if (ending_.kind != EndingKind::kComplete) return metrics;
    const auto score = metrics.find(info_.score);
    if (score == metrics.end() || !score->is_number())
      throw std::runtime_error("task \"" + info_.name +
                               "\": its evaluation lacks the score \"" + info_.score +
                               "\"");
    score_ = score->get<double>();
    log_->sync();
    std::ifstream lines(paths_.metrics());
    EndingSigns signs = read_signs(lines, info_);
    signs.score = score_;
    signs.weights_finite = weights_finite(experiment_.task->model());
    signs.weights_moved = weights_digest(experiment_.task->model()) != first_weights_;
    ending_ = ending_of(signs);
    return metrics;
  }

  // After the last checkpoint, so that a kill in here repeats it as a whole.
  bool finish() {
    const Json metrics = last_evaluation();
    const std::string status(ending_name(ending_.kind));
    if (ending_.kind != EndingKind::kComplete)
      warn("the run is " + status + ": " + ending_.reason);
    if (ending_.kind != EndingKind::kDiverged) {  // a diverged one may not even answer
      if (const Json sample = experiment_.task->sample(); !sample.is_null())
        replace_file(paths_.sample(), json_text(sample));
      experiment_.task->export_model(paths_.model());
    }
    log_->sync();
    const Json result = {{"status", status},
                         {"reason", ending_.reason},
                         {"score", score_},
                         {"score_name", info_.score},
                         {"metrics", metrics},
                         {"columns", column_list(info_.columns)},
                         {"measures", metric_values(paths_.root, info_.columns)},
                         {"wall_seconds", wall_seconds()}};
    replace_file(paths_.result(), json_text(result, 1));
    lock_->check();
    return true;
  }

  void report() {
    try {
      write_report(paths_.root, paths_.report());
    } catch (const std::exception& error) {
      progress_->say("report not written: " + std::string(error.what()));
    }
  }

  const Recipe& recipe_;
  const RunOptions& options_;
  RunPaths paths_;
  const TaskInfo& info_;
  Experiment experiment_;
  std::optional<RunLock> lock_;
  std::optional<MetricsLog> log_;
  std::optional<Progress> progress_;
  std::set<std::string> hidden_;  // matrices, whatever rule steps them
  std::int64_t total_ = 0, step_ = 0, saved_ = -1;
  double score_ = 0, seconds_before_ = 0;
  std::uint64_t first_weights_ = 0;  // digest of those before the first update
  Ending ending_;
  std::chrono::steady_clock::time_point began_;
};

}  // namespace

RunOutcome train(const Recipe& recipe, const RunOptions& options) {
  return TrainingRun(recipe, options).run();
}

}  // namespace pion::lab
