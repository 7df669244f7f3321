// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/step_all.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "pion/optim/step_checks.h"
#include "pion/optim/step_work.h"

namespace pion {
namespace {

using Item = StepPlan::Item;
using Kind = StepPlan::Kind;
using Task = StepPlan::Task;

// Rates of one core, of the right order: they only decide what is taken first.
constexpr double kFlopsPerSecond = 1e11;
constexpr double kBytesPerSecond = 1e10;
// Small parameters share a task up to this many entries: 2-20 us of work, ten times what
// taking a task costs.
constexpr std::size_t kGroupEntries = 16384;

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
  const ParameterUpdate& update = *item.update;
  item.matrices = plan.results.size();
  plan.results.resize(item.matrices + static_cast<std::size_t>(update.count));
  const double cost = map_flops(update) / kFlopsPerSecond;
  for (std::int64_t k = 0; k < update.count; ++k) {
    plan.tasks.push_back({Kind::kMatrices, i, static_cast<std::size_t>(k), cost});
  }
}

void add_scalars(StepPlan& plan, Item& item, const ParameterUpdate* previous) {
  const ParameterUpdate& update = *item.update;
  const bool known = previous != nullptr && previous->rule == update.rule &&
                     previous->step == update.step && !plan.scalars.empty();
  if (!known) {
    if (const auto* adamw = std::get_if<AdamWRule>(update.rule)) {
      plan.scalars.emplace_back(*adamw, update.step);
    } else {
      plan.scalars.emplace_back(std::get<SgdRule>(*update.rule), update.step);
    }
  }
  item.scalars = plan.scalars.size() - 1;
}

// Bytes read and written for each entry; only their ratio to flops matters.
constexpr double kScanCost = 4 / kBytesPerSecond, kStepCost = 28 / kBytesPerSecond;

void add_elementwise_tasks(StepPlan& plan, std::size_t i) {
  const Item& item = plan.items[i];
  const std::size_t chunks = chunk_count(item.entries);
  if (chunks == 1) {
    plan.small.push_back(i);
    return;
  }
  for (std::size_t c = 0; c < chunks; ++c) {
    const double size = static_cast<double>(chunk_of(c, item.entries).size);
    plan.tasks.push_back({Kind::kChunk, i, c, size * kStepCost});
  }
}

void add_item(StepPlan& plan, ParameterUpdate& update, const ParameterUpdate* previous) {
  const auto entries = static_cast<std::size_t>(update.count * update.rows * update.cols);
  const bool matrix = is_matrix_rule(*update.rule);
  const NonFinite policy = nonfinite_policy(*update.rule);
  const bool scan_first = policy == NonFinite::kRaise ||
                          (matrix ? update.count > 1 && policy == NonFinite::kSkip
                                  : chunk_count(entries) > 1);
  const std::size_t i = plan.items.size();
  plan.items.push_back({&update, entries, scan_first});
  update.result = {};
  if (entries == 0) return;
  Item& item = plan.items.back();
  item.chunks = plan.scanned.size();
  if (scan_first || !matrix) {
    plan.scanned.resize(item.chunks + chunk_count(entries));
    plan.squares.resize(plan.scanned.size());
  }
  if (scan_first) {
    for (std::size_t c = 0; c < chunk_count(entries); ++c) {
      const double size = static_cast<double>(chunk_of(c, entries).size);
      plan.scans.push_back({Kind::kScan, i, c, size * kScanCost});
    }
  }
  if (matrix) {
    add_matrix_tasks(plan, i);
  } else {
    add_scalars(plan, item, previous);
    add_elementwise_tasks(plan, i);
  }
}

// Runs of small parameters as one task each.
void add_groups(StepPlan& plan) {
  std::size_t first = 0, entries = 0;
  for (std::size_t k = 0; k < plan.small.size(); ++k) {
    entries += plan.items[plan.small[k]].entries;
    if (entries < kGroupEntries && k + 1 < plan.small.size()) continue;
    plan.tasks.push_back({Kind::kSmall, first, k + 1,
                          static_cast<double>(entries) * (kScanCost + kStepCost)});
    first = k + 1, entries = 0;
  }
}

// The dearest first, so that no thread is left with a dear one at the end; in order where
// the cost is the same, as memory lies.
void sort_by_cost(std::vector<Task>& tasks) {
  std::sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) {
    if (a.cost != b.cost) return a.cost > b.cost;
    return a.item != b.item ? a.item < b.item : a.index < b.index;
  });
}

void make_plan(StepPlan& plan, std::span<ParameterUpdate> updates) {
  plan.clear();
  const ParameterUpdate* previous = nullptr;  // the last one under an element-wise rule
  for (ParameterUpdate& update : updates) {
    add_item(plan, update, previous);
    if (!is_matrix_rule(*update.rule) && plan.items.back().entries > 0) {
      previous = &update;
    }
  }
  add_groups(plan);
  sort_by_cost(plan.tasks);
}

// What the scans found, item by item: throws, or marks what is skipped or zeroed.
void judge_scans(StepPlan& plan) {
  for (Item& item : plan.items) {
    if (!item.scan_first || item.entries == 0) continue;
    const auto scanned =
        std::span(plan.scanned).subspan(item.chunks, chunk_count(item.entries));
    const bool finite = std::all_of(scanned.begin(), scanned.end(),
                                    [](const RunScan& scan) { return scan.finite; });
    const NonFinite policy = nonfinite_policy(*item.update->rule);
    if (!finite && policy == NonFinite::kRaise) raise_nonfinite(*item.update);
    item.skipped = !finite && policy == NonFinite::kSkip;
    item.zero_nonfinite = !finite && policy == NonFinite::kZero;
    for (std::size_t c = 0; c < scanned.size(); ++c) {
      if (!scanned[c].finite && item.zero_nonfinite) {
        scanned[c] = scan_chunk(*item.update, item.entries, c, true);
      }
      item.gradient_squares += scanned[c].squares;
    }
  }
}

void run_task(StepPlan& plan, const Task& task, StepWorkspaces::Thread& thread) {
  if (task.kind == Kind::kSmall) {
    for (std::size_t k = task.item; k < task.index; ++k) {
      const Item& item = plan.items[plan.small[k]];
      item.update->result =
          step_small(*item.update, plan.scalars[item.scalars], item.entries, thread);
    }
    return;
  }
  const Item& item = plan.items[task.item];
  const std::size_t c = item.chunks + task.index;
  if (task.kind == Kind::kScan) {
    plan.scanned[c] = scan_chunk(*item.update, item.entries, task.index, false);
  } else if (item.skipped) {
    return;
  } else if (task.kind == Kind::kChunk) {
    plan.squares[c] = step_chunk(*item.update, plan.scalars[item.scalars], item.entries,
                                 task.index, item.zero_nonfinite, thread);
  } else {
    plan.results[item.matrices + task.index] =
        step_matrix(*item.update, task.index, thread);
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

void fill_results(const StepPlan& plan) {
  for (const Item& item : plan.items) {
    UpdateStatistics& result = item.update->result;
    if (item.entries == 0) continue;
    if (item.skipped) {
      result = {.skipped = true};
    } else if (is_matrix_rule(*item.update->rule)) {
      result = combine(
          std::span(plan.results)
              .subspan(item.matrices, static_cast<std::size_t>(item.update->count)));
    } else if (chunk_count(item.entries) > 1) {
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
  make_plan(plan, updates);
  const auto threads = static_cast<std::size_t>(executor.threads());
  if (workspaces.threads.size() < threads) workspaces.threads.resize(threads);
  for (StepWorkspaces::Thread& thread : workspaces.threads) {
    thread.matrix.collect_spectrum = workspaces.collect_spectrum;
  }
  run_tasks(plan, plan.scans, executor, workspaces);
  judge_scans(plan);
  run_tasks(plan, plan.tasks, executor, workspaces);
  fill_results(plan);
}

}  // namespace pion
