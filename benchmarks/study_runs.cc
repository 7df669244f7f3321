// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/study_runs.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <thread>

#include "lab/tasks/control_task.h"

namespace pion::study {
namespace {

constexpr double kRatio = 1.6;  // between neighbours of a grid; powers count half steps

double score_once(const Cell& cell, double lr, std::int64_t seed) {
  const double score =
      run_once(cell.make, cell.method.rule, lr, seed, cell.schedule)[cell.score];
  return std::isfinite(score) ? score : std::numeric_limits<double>::infinity();
}

double rate_at(const Cell& cell, int power) {
  return cell.grid.centre * std::pow(kRatio, 0.5 * power);
}

double tuning_score(const Cell& cell, int power) {
  double total = 0.0;
  for (const std::int64_t seed : cell.tune_seeds) {
    total += score_once(cell, rate_at(cell, power), seed);
  }
  return total / static_cast<double>(cell.tune_seeds.size());
}

}  // namespace

lab::Json run_once(const MakeTask& make, const Rule& rule, double lr, std::int64_t seed,
                   const Schedule& schedule) {
  constexpr std::int64_t kTail = 100;
  const auto task = make(seed);
  RoutingOptions options;
  options.matrices = rule;
  set_learning_rate(options.matrices, lr);
  options = lab::every_parameter_is_a_matrix(std::move(options));
  const auto optimizer = make_optimizer(task->model(), route(task->model(), options));
  const std::int64_t updates = task->updates();
  double tail = 0.0;
  for (std::int64_t i = 0; i < updates; ++i) {
    if (schedule.decay) {
      optimizer->set_lr_factor(1.0 -
                               static_cast<double>(i) / static_cast<double>(updates));
    }
    const lab::Json metrics = task->update(i, *optimizer);
    if (!schedule.tail.empty() && i >= updates - kTail) {
      tail += metrics[schedule.tail].get<double>() / std::min(kTail, updates);
    }
  }
  lab::Json result = task->evaluate();
  if (!schedule.tail.empty()) result["tail_loss"] = tail;
  return result;
}

void tune_and_score(Cell& cell) {
  const auto start = std::chrono::steady_clock::now();
  std::map<int, double> tried;  // power -> score
  const int half = cell.grid.points / 2;
  for (int power = -2 * half; power <= 2 * half; power += 2) {
    tried[power] = tuning_score(cell, power);
  }
  const auto best = [&] {
    return std::min_element(
               tried.begin(), tried.end(),
               [](const auto& a, const auto& b) { return a.second < b.second; })
        ->first;
  };
  const auto at_edge = [&] {
    return best() == tried.begin()->first || best() == tried.rbegin()->first;
  };
  while (at_edge() && static_cast<int>(tried.size()) < cell.grid.most) {
    const int next = best() == tried.begin()->first ? best() - 2 : best() + 2;
    tried[next] = tuning_score(cell, next);
  }
  cell.edge = at_edge();
  if (cell.grid.refine) {
    const int middle = best();
    for (const int power : {middle - 1, middle + 1}) {
      tried[power] = tuning_score(cell, power);
    }
  }
  for (const auto& [power, score] : tried) {
    cell.lrs.push_back(rate_at(cell, power));
    cell.tuning.push_back(score);
  }
  cell.best_lr = rate_at(cell, best());
  for (const std::int64_t seed : cell.fresh_seeds) {
    cell.scores.push_back(score_once(cell, cell.best_lr, seed));
  }
  cell.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Mean mean_of(const std::vector<double>& values) {
  const double count = static_cast<double>(values.size());
  double mean = 0.0, squares = 0.0;
  for (const double value : values) mean += value / count;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, values.size() > 1 ? std::sqrt(squares / (count - 1) / count) : 0.0};
}

void in_parallel(std::size_t count, int jobs,
                 const std::function<void(std::size_t)>& task) {
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    at::set_num_threads(1);
    for (std::size_t i = next++; i < count; i = next++) {
      try {
        task(i);
      } catch (...) {
        const std::lock_guard lock(failure_mutex);
        if (!failure) failure = std::current_exception();
        next = count;
      }
    }
  };
  std::vector<std::thread> threads;
  for (int job = 0; job < jobs; ++job) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace pion::study
