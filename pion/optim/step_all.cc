// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/step_all.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "pion/optim/block_tasks.h"
#include "pion/optim/step_checks.h"
#include "pion/optim/step_work.h"

namespace pion {
namespace {

using Item = StepPlan::Item;
using Kind = StepPlan::Kind;
using Task = StepPlan::Task;

// Seconds on one core, of the right order: they only decide what is taken first and what
// is worth splitting. An entry of AdamW and of SGD, in the L2 cache:
constexpr double kAdamWCost = 0.4e-9, kSgdCost = 0.2e-9;
constexpr double kFlopsPerSecond = 1e11;
// An array of less is not worth the 1-3 us that it takes to begin and end together.
constexpr double kSplitCost = 5e-6;

// Small parameters share a task up to this many entries, ten times what taking one costs.
constexpr std::size_t kGroupEntries = kChunkEntries;
// Scans below this many entries in all, 20 us, are not worth waking the threads.
constexpr std::size_t kSerialScan = 65536;

// About the floating-point operations of the map of one matrix: two products of the long
// side and five steps of a few of the short one, or an SVD.
double map_flops(const ParameterUpdate& update) {
  const HeadLayout& layout = update.layout;
  const double length = static_cast<double>(layout.axis == 0 ? update.rows : update.cols);
  const double other = static_cast<double>(layout.axis == 0 ? update.cols : update.rows);
  const bool svd = std::holds_alternative<LowRankMuonRule>(*update.rule) ||
                   std::holds_alternative<LowPassMuonRule>(*update.rule);
  double flops = 0;
  for (std::size_t part = 0; part < layout.heads.size(); ++part) {
    const double heads = static_cast<double>(layout.heads[part]);
    const double head =
        (layout.sizes.empty() ? length : static_cast<double>(layout.sizes[part])) / heads;
    const double m = std::min(head, other), n = std::max(head, other);
    flops += heads * m * m * (svd ? 20.0 * n : 4.0 * n + 20.0 * m);
  }
  return flops;
}

// This is the one place where an update under a matrix rule becomes tasks.
void add_matrix_tasks(StepPlan& plan, std::size_t i) {
  Item& item = plan.items[i];
  const auto count = static_cast<std::size_t>(item.update->count);
  item.matrices = plan.results.size();
  plan.results.resize(item.matrices + count);
  plan.idle.resize(plan.results.size());
  if (item.by_blocks) return add_block_tasks(plan, i);
  const double cost = item.cost / static_cast<double>(count);
  for (std::size_t k = 0; k < count; ++k) {
    plan.tasks.push_back({Kind::kMatrix, i, k, k + 1, cost, plan.tasks.size()});
  }
}

void add_scalars(StepPlan& plan, Item& item, const ParameterUpdate* previous) {
  const ParameterUpdate& update = *item.update;
  const bool known = previous != nullptr && previous->rule == update.rule &&
                     previous->step == update.step;
  if (!known) {
    if (const auto* adamw = std::get_if<AdamWRule>(update.rule)) {
      plan.scalars.emplace_back(*adamw, update.step);
    } else {
      plan.scalars.emplace_back(std::get<SgdRule>(*update.rule), update.step);
    }
  }
  item.scalars = plan.scalars.size() - 1;
}

// Tasks of several chunks each: eight a thread, so that they end together. In such an
// order that neighbours are dealt to one thread (TaskLists), as other code spreads them.
void add_chunk_tasks(std::vector<Task>& tasks, Kind kind, std::size_t i, const Item& item,
                     std::size_t threads) {
  const std::size_t chunks =
      kind == Kind::kScan ? item.scan_chunks() : chunk_count(item.entries);
  const std::size_t range = std::max<std::size_t>(1, chunks / (8 * threads));
  const std::size_t ranges = (chunks + range - 1) / range;
  const std::size_t rounds = (ranges + threads - 1) / threads;
  const double part = static_cast<double>(range) / static_cast<double>(chunks);
  for (std::size_t round = 0; round < rounds; ++round) {
    for (std::size_t thread = 0; thread < threads; ++thread) {
      const std::size_t first = (thread * rounds + round) * range;
      if (first >= chunks) continue;
      const std::size_t last = std::min(chunks, first + range);
      tasks.push_back({kind, i, first, last, item.cost * part, tasks.size()});
    }
  }
}

// Runs of small parameters, or one that is not small, as one task each.
void add_whole_tasks(StepPlan& plan) {
  std::size_t first = 0, entries = 0;
  double cost = 0;
  for (std::size_t k = 0; k < plan.whole.size(); ++k) {
    entries += plan.items[plan.whole[k]].entries;
    cost += plan.items[plan.whole[k]].cost;
    if (entries < kGroupEntries && k + 1 < plan.whole.size()) continue;
    plan.tasks.push_back({Kind::kWhole, 0, first, k + 1, cost, plan.tasks.size()});
    first = k + 1, entries = 0, cost = 0;
  }
}

void add_item(StepPlan& plan, ParameterUpdate& update, const ParameterUpdate* previous) {
  const auto entries = static_cast<std::size_t>(update.count * update.rows * update.cols);
  update.result = {}, update.matrices = {};
  if (entries == 0) return;
  const bool matrix = is_matrix_rule(*update.rule);
  const double cost =
      matrix
          ? static_cast<double>(update.count) * map_flops(update) / kFlopsPerSecond
          : static_cast<double>(entries) *
                (std::holds_alternative<AdamWRule>(*update.rule) ? kAdamWCost : kSgdCost);
  const std::size_t piece =
      matrix ? entries / static_cast<std::size_t>(update.count) : entries;
  plan.items.push_back({&update, entries, piece, cost});
  Item& item = plan.items.back();
  const NonFinite policy = nonfinite_policy(*update.rule);
  item.scan_first =
      policy == NonFinite::kRaise || (matrix && (update.count > 1 || update.stack));
  item.look_at_momentum =
      matrix && policy != NonFinite::kSkip && !update.momentum_is_finite;
  if (!matrix) add_scalars(plan, item, previous);
}

// The dearest first, so that no thread is left with a dear one at the end.
void sort_by_cost(std::vector<Task>& tasks) {
  std::sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) {
    return a.cost != b.cost ? a.cost > b.cost : a.made < b.made;
  });
}

// What is looked at before anything is written.
void add_scans(StepPlan& plan, std::size_t i, std::size_t threads) {
  Item& item = plan.items[i];
  item.chunks = plan.scanned.size();
  if (item.scan_first) {
    plan.scanned.resize(item.chunks + item.scan_chunks());
    plan.squares.resize(plan.scanned.size());
    add_chunk_tasks(plan.scans, Kind::kScan, i, item, threads);
  }
  item.momentum_chunks = plan.momentum_finite.size();
  if (item.look_at_momentum) {
    plan.momentum_finite.resize(item.momentum_chunks + chunk_count(item.entries));
    add_chunk_tasks(plan.scans, Kind::kMomentum, i, item, threads);
  }
}

void make_plan(StepPlan& plan, std::span<ParameterUpdate> updates, std::size_t threads) {
  plan.clear();
  const ParameterUpdate* previous = nullptr;  // the last with scalars
  for (ParameterUpdate& update : updates) {
    const std::size_t before = plan.items.size();
    add_item(plan, update, previous);
    const bool added = plan.items.size() > before;  // it is not empty
    if (added && !is_matrix_rule(*update.rule)) previous = &update;
  }
  double total = 0;
  for (const Item& item : plan.items) total += item.cost;
  // what is less than a quarter of a thread's share is stepped at one go
  const double share = total / static_cast<double>(4 * threads);
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    Item& item = plan.items[i];
    const bool matrix = is_matrix_rule(*item.update->rule);
    item.split = !matrix && threads > 1 && item.cost > share && item.cost > kSplitCost;
    item.by_blocks = matrix && threads > 1 && item.cost > share &&
                     item.cost > kSplitCost && may_step_by_blocks(*item.update);
    item.scan_first |= item.split || item.by_blocks;
    add_scans(plan, i, threads);
    if (matrix) {
      add_matrix_tasks(plan, i);
    } else if (item.split) {
      add_chunk_tasks(plan.tasks, Kind::kChunks, i, item, threads);
    } else {
      plan.whole.push_back(i);
    }
  }
  add_whole_tasks(plan);
  sort_by_cost(plan.tasks);
  form_teams(plan, total, threads);
}

std::span<RunScan> scans_of(StepPlan& plan, const Item& item) {
  return std::span(plan.scanned).subspan(item.chunks, item.scan_chunks());
}

// ||G||_F^2 of one matrix of an item that was scanned first.
double squares_of(StepPlan& plan, const Item& item, std::size_t matrix) {
  const std::size_t chunks = chunk_count(item.piece);
  const auto scanned = scans_of(plan, item).subspan(matrix * chunks, chunks);
  double squares = 0;
  for (std::size_t c = chunks; c-- > 0;) squares += scanned[c].squares;
  return squares;
}

// What the scans of the gradient found: throws, or marks what is skipped or zeroed.
void judge_gradient(StepPlan& plan, Item& item) {
  const auto scanned = scans_of(plan, item);
  const bool finite = std::all_of(scanned.begin(), scanned.end(),
                                  [](const RunScan& scan) { return scan.finite; });
  const NonFinite policy = nonfinite_policy(*item.update->rule);
  if (!finite && policy == NonFinite::kRaise) raise_nonfinite(*item.update);
  item.skipped = !finite && policy == NonFinite::kSkip;
  item.zero_nonfinite = !finite && policy == NonFinite::kZero;
  for (std::size_t c = scanned.size(); c-- > 0;) {  // the order of step_whole
    if (item.zero_nonfinite) scanned[c] = scan_chunk(*item.update, item.piece, c, true);
    item.gradient_squares += scanned[c].squares;
  }
}

void judge_momentum(const StepPlan& plan, const Item& item,
                    std::span<const ParameterUpdate> updates) {
  const auto looked = std::span(plan.momentum_finite)
                          .subspan(item.momentum_chunks, chunk_count(item.entries));
  if (std::find(looked.begin(), looked.end(), char{0}) == looked.end()) return;
  const auto index = static_cast<std::size_t>(item.update - updates.data());
  throw std::invalid_argument(
      "step_all: " + label(*item.update, index) +
      ": the momentum must be finite, got NaN or Inf; restart it from zeros");
}

// Squares of entries below 1e-23 vanish, so what seems to be zero is looked at again.
void add_looks(StepPlan& plan, std::size_t i) {
  const Item& item = plan.items[i];
  for (std::size_t k = 0; k < static_cast<std::size_t>(item.update->count); ++k) {
    if (squares_of(plan, item, k) > 0) continue;
    plan.looks.push_back({Kind::kIdle, i, k, k + 1, 0.0, plan.looks.size()});
  }
}

// Throws what stands against the step; finds what takes no part in it.
void judge_scans(StepPlan& plan, std::span<const ParameterUpdate> updates) {
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    Item& item = plan.items[i];
    if (item.scan_first) judge_gradient(plan, item);
    if (item.look_at_momentum) judge_momentum(plan, item, updates);
    const bool matrix = is_matrix_rule(*item.update->rule);
    if (matrix && item.update->stack && !item.skipped) add_looks(plan, i);
  }
}

void run_task(StepPlan& plan, const Task& task, StepWorkspaces::Thread& thread) {
  if (task.kind == Kind::kWhole) {
    for (std::size_t k = task.first; k < task.last; ++k) {
      const Item& item = plan.items[plan.whole[k]];
      if (item.skipped) continue;
      item.update->result =
          step_whole(*item.update, plan.scalars[item.scalars], item.entries, thread);
    }
    return;
  }
  const Item& item = plan.items[task.item];
  if (item.skipped) return;
  if (task.kind == Kind::kBlock) {
    SerialExecutor here;
    return run_block(plan, task, thread, here);
  }
  if (task.kind == Kind::kIdle) {
    plan.idle[item.matrices + task.first] =
        gradient_is_zero(*item.update, task.first, item.zero_nonfinite);
    return;
  }
  if (task.kind == Kind::kMatrix) {
    const std::size_t matrix = item.matrices + task.first;
    if (!plan.idle[matrix])
      plan.results[matrix] = step_matrix(*item.update, task.first, thread);
    return;
  }
  for (std::size_t c = task.first; c < task.last; ++c) {
    if (task.kind == Kind::kScan) {
      plan.scanned[item.chunks + c] = scan_chunk(*item.update, item.piece, c, false);
    } else if (task.kind == Kind::kMomentum) {
      plan.momentum_finite[item.momentum_chunks + c] =
          momentum_chunk_is_finite(*item.update, item.entries, c);
    } else {
      plan.squares[item.chunks + c] =
          step_chunk(*item.update, plan.scalars[item.scalars], item.entries, c,
                     item.zero_nonfinite, thread);
    }
  }
}

void run_tasks(StepPlan& plan, const std::vector<Task>& tasks, Executor& executor,
               StepWorkspaces& workspaces) {
  if (tasks.empty()) return;
  executor.run(static_cast<int>(tasks.size()), [&](int task, int thread) {
    run_task(plan, tasks[static_cast<std::size_t>(task)],
             workspaces.threads[static_cast<std::size_t>(thread)]);
  });
}

void run_scans(StepPlan& plan, Executor& executor, StepWorkspaces& workspaces) {
  const std::size_t chunks = plan.scanned.size() + plan.momentum_finite.size();
  if (chunks * kChunkEntries > kSerialScan) {
    run_tasks(plan, plan.scans, executor, workspaces);
  } else {
    SerialExecutor here;
    run_tasks(plan, plan.scans, here, workspaces);
  }
}

void fill_matrix_results(StepPlan& plan, const Item& item, bool collect_spectrum) {
  const auto count = static_cast<std::size_t>(item.update->count);
  const auto results = std::span(plan.results).subspan(item.matrices, count);
  if (item.skipped) {
    std::fill(results.begin(), results.end(), UpdateStatistics{.skipped = true});
  } else if (item.by_blocks) {
    merge_block_results(plan, item, collect_spectrum);
  }
  for (std::size_t k = 0; k < count; ++k) {
    if (plan.idle[item.matrices + k]) {
      results[k] = {.idle = 1};
    } else if (item.scan_first && !results[k].skipped) {
      results[k].gradient_norm = std::sqrt(squares_of(plan, item, k));
    }
  }
  UpdateStatistics& result = item.update->result;
  result = combine(results);
  if (item.scan_first && !result.skipped) {
    result.gradient_norm = std::sqrt(item.gradient_squares);
  }
  item.update->matrices = results;
}

void fill_results(StepPlan& plan, bool collect_spectrum) {
  for (const Item& item : plan.items) {
    UpdateStatistics& result = item.update->result;
    if (is_matrix_rule(*item.update->rule)) {
      fill_matrix_results(plan, item, collect_spectrum);
    } else if (item.skipped) {
      result = {.skipped = true};
    } else if (item.split) {
      double squares = 0;
      for (std::size_t c = 0; c < chunk_count(item.entries); ++c) {
        squares += plan.squares[item.chunks + c];
      }
      result.gradient_norm = std::sqrt(item.gradient_squares);
      result.update_rms = std::sqrt(squares / static_cast<double>(item.entries));
    }
  }
}

}  // namespace

void step_all(std::span<ParameterUpdate> updates, Executor& executor,
              StepWorkspaces& workspaces) {
  check_updates(updates);
  StepPlan& plan = workspaces.plan;
  check_apart(updates, plan.written, plan.sorted);
  if (executor.threads() < 1)
    throw std::invalid_argument("step_all: the executor must have threads >= 1, got " +
                                std::to_string(executor.threads()));
  const auto threads = static_cast<std::size_t>(executor.threads());
  make_plan(plan, updates, threads);
  if (workspaces.threads.size() < threads) workspaces.threads.resize(threads);
  for (StepWorkspaces::Thread& thread : workspaces.threads) {
    thread.matrix.collect_spectrum = workspaces.collect_spectrum;
    if (thread.weight.size() < kWidePiece) thread.weight.resize(kWidePiece);
  }
  run_scans(plan, executor, workspaces);
  judge_scans(plan, updates);
  run_tasks(plan, plan.looks, executor, workspaces);
  for (const Task& task : plan.team_tasks) {
    if (plan.items[task.item].skipped) continue;
    run_block(plan, task, workspaces.threads.front(), executor);
  }
  run_tasks(plan, plan.tasks, executor, workspaces);
  fill_results(plan, workspaces.collect_spectrum);
}

}  // namespace pion
