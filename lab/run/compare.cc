// SPDX-License-Identifier: Apache-2.0
#include "lab/run/compare.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <optional>
#include <stdexcept>

#include "lab/files/durable_file.h"
#include "lab/files/interrupt.h"
#include "lab/files/json_text.h"
#include "lab/files/plain_name.h"
#include "lab/files/printable.h"
#include "lab/files/process_pool.h"
#include "lab/files/thread_limit.h"
#include "lab/report/report.h"
#include "lab/rewards/confinement.h"
#include "lab/run/compare_plan.h"
#include "lab/run/compare_resume.h"
#include "lab/run/ending.h"
#include "lab/run/metric_columns.h"
#include "lab/run/named_verifiers.h"
#include "lab/run/progress.h"
#include "lab/run/recipe_files.h"
#include "lab/run/run_directory.h"
#include "lab/run/start_policy.h"
#include "lab/run/task_info.h"
#include "lab/run/tracking.h"
#include "pion/kernels/cpu_target.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

std::string score_text(const std::optional<double>& score) {
  char text[32];
  std::snprintf(text, sizeof text, "%.5g", score.value_or(std::nan("")));
  return text;
}

std::string value_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

// Text columns; the first is flush left, the others right.
std::string columns(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - row[i].size(), ' ');
      text += i == 0 ? row[i] + space : "  " + space + row[i];
    }
    text += "\n";
  }
  return text;
}

std::string last_line(const fs::path& log) {
  std::ifstream file(log);
  std::string last;
  for (std::string line; std::getline(file, line);)
    if (!line.empty()) last = line;
  return last;
}

class Comparison {
 public:
  explicit Comparison(const CompareOptions& options)
      : options_(options),
        recipe_file_(find_recipe(options.recipe_file)),
        recipe_name_(fs::path(options.recipe_file).stem().string()) {
    flags_ = options.flags;
    const fs::path copy = options.out / "recipe.toml";
    if (options.resume) refuse_other_resume(options.out, recipe_file_);
    if (options.resume && is_comparison(options.out)) {
      const FirstStart first = first_start(options.out);
      flags_ = first.flags;
      if (!first.recipe.empty()) recipe_name_ = first.recipe;
    }
    if (options.resume && fs::exists(copy)) recipe_file_ = copy;
    recipe_ = Recipe::load(recipe_file_.string());
    recipe_.set_all(flags_);
    recipe_.check_file();
    check_machine();
    info_ = &find_task(recipe_.task());
    plan_ = make_plan(recipe_, info_->higher_is_better);
    named_ = named_verifiers(recipe_, plan_.optimizers);
    if (options.resume) check_resumed_flags(copy);
    check_grid_flags(plan_, flags_);
    if (info_->start) info_->start(recipe_);  // its contradictions, before the training
  }

  CompareOutcome run() {
    if (!options_.resume) refuse_existing(options_.out);
    const InterruptGuard guard;
    // before the children, which would wait for one another, and before anything is
    // written: after a signal the same command goes on
    make_start_policy(recipe_, static_cast<int>(recipe_.integer("threads")),
                      /*quiet=*/false);
    lock_.emplace(options_.out);
    // another start may have had the lock until now
    if (!options_.resume) refuse_existing(options_.out);
    clean_temporaries(options_.out);
    runs_ = plan_.tuning_runs();
    const std::size_t tuning = runs_.size();
    // first of all the flags: a resume without them would be another comparison
    if (!is_comparison(options_.out)) save();
    const fs::path copy = options_.out / "recipe.toml";
    if (recipe_file_ != copy) replace_file(copy, read_recipe_file(recipe_file_));
    if (!execute(0, "tuning")) return interrupted();
    best_ = best_rates(plan_, runs_);
    say_best();
    const std::vector<ComparedRun> final = plan_.final_runs(best_);
    runs_.insert(runs_.end(), final.begin(), final.end());
    if (!execute(tuning, "final")) return interrupted();
    std::fputs(("\n" + table() + columns_table()).c_str(), stdout);
    report();
    // of the runs that count: final ones, and the grid of an optimizer that has none
    const auto failed = [this](const ComparedRun& run) {
      return run.failed() && (run.phase == "final" || !best_.contains(run.optimizer));
    };
    const bool sound = std::none_of(runs_.begin(), runs_.end(), failed);
    return sound ? CompareOutcome::kComplete : CompareOutcome::kFailed;
  }

 private:
  // Flags may say again what recipe and first flags say of verifiers, nothing new.
  void check_resumed_flags(const fs::path& copy) const {
    std::set<std::string> named = options_.named;
    add_handed(named, find_recipe(options_.recipe_file), copy, plan_.optimizers);
    require_named(named_, named, options_.out);
    TextPairs known = flags_;
    known.insert(known.end(), named_.begin(), named_.end());
    refuse_new_flags(options_.out, known, options_.flags);
  }

  // Of one optimizer's runs: what they must be told again when they are resumed.
  TextPairs verifiers_of(const std::string& optimizer) const {
    Recipe recipe = recipe_;
    recipe.set_all(recipe_.variant(optimizer));
    return named_verifiers(recipe);
  }

  // What every run would fail by.
  void check_machine() const {
    cpu_target();  // throws for one that this machine lacks
    require_threads(static_cast<int>(recipe_.integer("threads")), "threads");
    if (const std::string& track = recipe_.text("track"); !track.empty())
      check_tracker(track);
    check_report_assets();
  }

  ChildProcess child(const ComparedRun& run) const {
    const fs::path directory = options_.out / run.dir;
    refuse_link(directory);
    std::vector<std::string> words = {options_.program.string(), "train",
                                      (options_.out / "recipe.toml").string()};
    for (const auto& [key, text] : flags_)
      if (key.rfind("compare.", 0) != 0) words.push_back("--" + key + "=" + text);
    words.push_back("--optimizer=" + run.optimizer);
    words.push_back("--" + plan_.lr_key + "=" + number_text(run.lr));
    words.push_back("--seed=" + std::to_string(run.seed));
    words.insert(words.end(), {"--out", directory.string(), "--no-report"});
    // its own recipe has all of that in it
    if (fs::exists(directory / "recipe.toml")) {
      words = {words[0], "train", "--out", directory.string(), "--no-report"};
      for (const auto& [key, name] : verifiers_of(run.optimizer))
        words.push_back("--" + key + "=" + name);
    }
    if (fs::exists(directory)) words.emplace_back("--resume");
    if (workers_run_unconfined()) words.emplace_back("--unconfined");
    return {words, options_.out / (run.dir + ".log")};
  }

  // Runs what is not complete yet, from index `first` on. False if a signal cut it.
  bool execute(std::size_t first, const char* phase) {
    std::vector<ChildProcess> children;
    std::vector<std::size_t> indices;
    for (std::size_t i = first; i < runs_.size(); ++i) {
      if (!wait_for_earlier(options_.out / runs_[i].dir)) return false;
      if (collect(runs_[i])) continue;
      children.push_back(child(runs_[i]));
      indices.push_back(i);
    }
    save();
    const std::size_t total = runs_.size() - first;
    std::size_t done = total - children.size();
    std::printf("%s: %zu runs%s\n", phase, total,
                done ? (", " + std::to_string(done) + " complete already").c_str() : "");
    std::fflush(stdout);
    const auto started = [](std::size_t) {};
    bool cut = false;
    const auto finished = [&](std::size_t child, int status) {
      ComparedRun& run = runs_[indices[child]];
      if (InterruptGuard::interrupted() && was_interrupted(status)) {
        cut = true;
        return;
      }
      if (!collect(run)) {
        run.status = "failed";
        run.error = "exit status " + std::to_string(status) + ": " +
                    last_line(options_.out / (run.dir + ".log"));
      }
      ++done;
      say(run, done, total);
      save();
    };
    return run_children(children, options_.jobs, started, finished) && !cut;
  }

  // Takes the score of a finished run. Scores that are no finite number stay absent.
  bool collect(ComparedRun& run) const {
    const fs::path path = options_.out / run.dir / "result.json";
    if (!fs::exists(path)) return false;
    const Json json = read_json(path);
    const Ending ending = read_ending(path);
    run.status = ending_name(ending.kind);
    run.error = ending.reason;
    if (const auto score = json.find("score"); score != json.end() && score->is_number())
      run.score = score->get<double>();
    if (const auto wall = json.find("wall_seconds");
        wall != json.end() && wall->is_number())
      run.wall_seconds = wall->get<double>();
    run.metrics = metric_values(options_.out / run.dir, info_->columns);
    return true;
  }

  void say(const ComparedRun& run, std::size_t done, std::size_t total) const {
    std::printf("[%zu/%zu] %-14s lr %-10s seed %-5lld ", done, total,
                run.optimizer.c_str(), number_text(run.lr).c_str(),
                static_cast<long long>(run.seed));
    if (run.failed())
      std::printf("FAILED: %s\n", printable_line(run.error).c_str());
    else
      std::printf("%s %s  %s%s\n", info_->score.c_str(), score_text(run.score).c_str(),
                  duration_text(run.wall_seconds).c_str(),
                  run.error.empty()
                      ? ""
                      : printable_line("  " + run.status + ": " + run.error).c_str());
    std::fflush(stdout);
  }

  void say_best() const {
    const std::map<std::string, std::string> edges = rates_at_edge(plan_, best_);
    for (const std::string& optimizer : plan_.optimizers) {
      const auto at = best_.find(optimizer);
      if (at == best_.end()) {
        std::printf("%s: no rate of its grid has a score%s; see the .log files in %s\n",
                    optimizer.c_str(), endings(optimizer, "tune").c_str(),
                    options_.out.c_str());
        continue;
      }
      const double lr = at->second;
      std::printf("%s: best %s %s", optimizer.c_str(), plan_.lr_key.c_str(),
                  number_text(lr).c_str());
      if (const auto edge = edges.find(optimizer); edge != edges.end())
        std::printf(
            ", at the %s edge of its grid: the best may lie beyond; extend it with "
            "--grid %s=...,%s",
            edge->second.c_str(), optimizer.c_str(),
            number_text(rounded_rate(edge->second == "lower" ? lr / 3 : lr * 3)).c_str());
      std::printf("\n");
    }
    std::fflush(stdout);
  }

  // ", 2 diverged, 1 collapsed" of an optimizer's runs in a phase.
  std::string endings(const std::string& optimizer, const char* phase) const {
    std::map<std::string, int> counts;
    for (const ComparedRun& run : runs_)
      if (run.optimizer == optimizer && run.phase == phase && run.status != "complete")
        ++counts[run.status];
    std::string text;
    for (const auto& [status, count] : counts)
      text += ", " + std::to_string(count) + " " + status;
    return text;
  }

  std::string table() const {
    std::vector<std::vector<std::string>> rows = {
        {"optimizer", plan_.lr_key, "runs", info_->score + " (mean +- standard error)",
         "wall time"}};
    for (const std::string& optimizer : plan_.optimizers) {
      std::vector<double> scores, seconds;
      for (const ComparedRun& run : runs_)
        if (run.optimizer == optimizer && run.phase == "final" && run.score &&
            !run.failed())
          scores.push_back(*run.score), seconds.push_back(run.wall_seconds);
      const Summary score = summarize(scores);
      const auto lr = best_.find(optimizer);
      std::string mean = scores.empty() ? "none finished" : score_text(score.mean);
      if (score.count > 1) mean += " +- " + score_text(score.standard_error);
      rows.push_back(
          {optimizer, lr == best_.end() ? "-" : number_text(lr->second),
           std::to_string(scores.size()) + "/" + std::to_string(plan_.seeds.size()) +
               endings(optimizer, "final"),
           mean, scores.empty() ? "-" : duration_text(summarize(seconds).mean)});
    }
    return columns(rows) +
           (info_->higher_is_better ? "Higher is better.\n" : "Lower is better.\n");
  }

  // What else was measured: a row each, an optimizer a column, so that it fits a
  // terminal.
  std::string columns_table() const {
    std::vector<std::vector<std::string>> rows = {{"mean +- standard error"}};
    for (const std::string& optimizer : plan_.optimizers) rows[0].push_back(optimizer);
    for (const MetricColumn& column : info_->columns) {
      std::vector<std::string> row = {column.title};
      bool known = false;
      for (const std::string& optimizer : plan_.optimizers) {
        std::vector<double> values;
        for (const ComparedRun& run : runs_)
          if (const auto at = run.metrics.find(column.metric);
              run.optimizer == optimizer && run.phase == "final" &&
              at != run.metrics.end())
            values.push_back(at->second);
        const Summary summary = summarize(values);
        known = known || summary.count > 0;
        row.push_back(values.empty() ? "-" : value_text(summary.mean));
        if (summary.count > 1) row.back() += " +- " + value_text(summary.standard_error);
      }
      if (known) rows.push_back(row);
    }
    return rows.size() > 1 ? "\n" + columns(rows) : "";
  }

  void save() const {
    lock_->check();
    Json flags = Json::array();  // pairs: an override may be given more than once
    for (const auto& [key, text] : flags_)
      flags.push_back({{"key", key}, {"value", text}});
    Json runs = Json::array();
    for (const ComparedRun& run : runs_) {
      Json each = {{"dir", run.dir},     {"optimizer", run.optimizer},
                   {"lr", run.lr},       {"seed", run.seed},
                   {"phase", run.phase}, {"status", run.status},
                   {"score", nullptr},   {"wall_seconds", run.wall_seconds}};
      if (run.score) each["score"] = *run.score;
      if (!run.metrics.empty()) each["metrics"] = run.metrics;
      if (!run.error.empty()) each["error"] = run.error;
      runs.push_back(each);
    }
    const Json json = {{"recipe", recipe_name_},
                       {"task", info_->name},
                       {"score", info_->score},
                       {"higher_is_better", plan_.higher_is_better},
                       {"curve", info_->curve},
                       {"progress", info_->progress},
                       {"columns", column_list(info_->columns)},
                       {"command", options_.command},
                       {"flags", flags},
                       {"optimizers", plan_.optimizers},
                       {"lr_key", plan_.lr_key},
                       {"grid", plan_.grids},
                       {"tune_seeds", plan_.tune_seeds},
                       {"seeds", plan_.seeds},
                       {"best", best_},
                       {"at_edge", rates_at_edge(plan_, best_)},
                       {"runs", runs}};
    replace_file(options_.out / "compare.json", json_text(json, 1));
  }

  CompareOutcome interrupted() const {
    std::printf("interrupted; continue with: pion compare --resume --out %s%s\n",
                shell_word(options_.out.string()).c_str(),
                words_to_continue(named_).c_str());
    return CompareOutcome::kInterrupted;
  }

  void report() const {
    const fs::path html = options_.out / "report.html";
    try {
      write_report(options_.out, html);
      std::printf("report: %s\n", html.c_str());
    } catch (const std::exception& error) {
      std::printf("report not written: %s\n", printable(error.what()).c_str());
    }
  }

  const CompareOptions& options_;
  std::optional<RunLock> lock_;
  fs::path recipe_file_;
  std::string recipe_name_;
  TextPairs flags_;
  Recipe recipe_;
  const TaskInfo* info_ = nullptr;
  ComparePlan plan_;
  TextPairs named_;  // verifiers that run code
  std::vector<ComparedRun> runs_;
  std::map<std::string, double> best_;
};

}  // namespace

CompareOutcome compare(const CompareOptions& options) {
  return Comparison(options).run();
}

std::string comparison_text(const Recipe& recipe, const TextPairs& flags) {
  const ComparePlan plan = make_plan(recipe, find_task(recipe.task()).higher_is_better);
  check_grid_flags(plan, flags);
  std::vector<std::vector<std::string>> rows = {
      {"optimizer", plan.lr_key, "tuning runs", "final runs"}};
  for (const std::string& optimizer : plan.optimizers) {
    std::string rates;
    for (const double rate : plan.grids.at(optimizer))
      rates += (rates.empty() ? "" : ", ") + number_text(rate);
    const std::size_t count = plan.grids.at(optimizer).size();
    rows.push_back({optimizer, rates,
                    std::to_string(count > 1 ? count * plan.tune_seeds.size() : 0),
                    std::to_string(plan.seeds.size())});
  }
  return columns(rows);
}

}  // namespace pion::lab
