// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/interleave.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "lab/bench/stopwatch.h"

namespace pion::bench {
namespace {

double turn(const Contender& contender, int calls) {
  const Clock::time_point start = Clock::now();
  for (int call = 0; call < calls; ++call) contender.step();
  return seconds_since(start) / calls;
}

constexpr double kShortestTurn = 1e-4;  // seconds

// State, workspaces and thread pools are made here. Returns the seconds of one step.
double warm_up(const Contender& contender) {
  constexpr double kSlow = 0.5, kLeast = 1e-9;  // a clock may stand still
  double taken = turn(contender, 1);
  if (taken < kSlow) taken = turn(contender, 1);
  if (taken < kShortestTurn) taken = turn(contender, 10);
  return std::max(taken, kLeast);
}

// Steps in one turn.
int calls_of(double step_seconds) {
  constexpr int kMostCalls = 1000;
  return std::clamp(static_cast<int>(std::ceil(kShortestTurn / step_seconds)), 1,
                    kMostCalls);
}

Timing summary(std::vector<double> taken, int calls) {
  std::sort(taken.begin(), taken.end());
  const std::size_t middle = taken.size() / 2;
  const double median =
      taken.size() % 2 == 1 ? taken[middle] : 0.5 * (taken[middle - 1] + taken[middle]);
  return {taken.front(), median, static_cast<int>(taken.size()), calls};
}

}  // namespace

std::vector<Timing> interleave(std::span<const Contender> contenders, double seconds,
                               double slowest) {
  constexpr std::size_t kFewestRounds = 3, kMostRounds = 20000;
  std::vector<double> first;
  for (const Contender& each : contenders) first.push_back(warm_up(each));
  const double fastest =
      first.empty() ? 0 : *std::min_element(first.begin(), first.end());
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    if (!contenders[i].may_be_left_out || first[i] <= slowest * fastest)
      order.push_back(i);
  }
  std::vector<std::vector<double>> taken(contenders.size());
  std::minstd_rand random(1);
  const Clock::time_point start = Clock::now();
  for (std::size_t round = 0; round < kMostRounds; ++round) {
    if (round >= kFewestRounds && seconds_since(start) >= seconds) break;
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t i : order)
      taken[i].push_back(1e3 * turn(contenders[i], calls_of(first[i])));
  }
  std::vector<Timing> timings(contenders.size());
  for (const std::size_t i : order)
    timings[i] = summary(std::move(taken[i]), calls_of(first[i]));
  return timings;
}

}  // namespace pion::bench
