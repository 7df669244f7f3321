// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/interleave.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "lab/bench/stopwatch.h"

namespace pion::bench {
namespace {

double turn(const Contender& contender, int calls) {
  const Clock::time_point start = Clock::now();
  for (int call = 0; call < calls; ++call) contender.step();
  return seconds_since(start) / calls;
}

// State, workspaces and thread pools are made here. Returns the steps of one turn.
int warm_up(const Contender& contender) {
  constexpr double kSlow = 0.5, kShortestTurn = 1e-4;  // seconds
  constexpr int kMostCalls = 1000;
  double taken = turn(contender, 1);
  if (taken < kSlow) taken = turn(contender, 1);
  if (taken < kShortestTurn) taken = turn(contender, 10);
  return std::clamp(static_cast<int>(std::ceil(kShortestTurn / taken)), 1, kMostCalls);
}

}  // namespace

std::vector<Timing> interleave(std::span<const Contender> contenders, double seconds) {
  constexpr std::size_t kFewestRounds = 3, kMostRounds = 20000;
  std::vector<Timing> timings(contenders.size());
  std::vector<std::vector<double>> taken(contenders.size());
  for (std::size_t i = 0; i < contenders.size(); ++i)
    timings[i].calls = warm_up(contenders[i]);
  std::vector<std::size_t> order(contenders.size());
  std::iota(order.begin(), order.end(), 0);
  std::minstd_rand random(1);
  const Clock::time_point start = Clock::now();
  for (std::size_t round = 0; round < kMostRounds; ++round) {
    if (round >= kFewestRounds && seconds_since(start) >= seconds) break;
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t i : order)
      taken[i].push_back(1e3 * turn(contenders[i], timings[i].calls));
  }
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    std::sort(taken[i].begin(), taken[i].end());
    timings[i].min_ms = taken[i].front();
    const std::size_t middle = taken[i].size() / 2;
    timings[i].median_ms = taken[i].size() % 2 == 1
                               ? taken[i][middle]
                               : 0.5 * (taken[i][middle - 1] + taken[i][middle]);
    timings[i].repetitions = static_cast<int>(taken[i].size());
  }
  return timings;
}

}  // namespace pion::bench
