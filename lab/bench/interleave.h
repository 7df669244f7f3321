// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace pion::bench {

// One of those that are timed against each other.
struct Contender {
  std::string name;
  std::function<void()> step;
  bool may_be_left_out = false;  // where it is slow, see interleave
};

// Milliseconds of one step.
struct Timing {
  double min_ms = 0, median_ms = 0;
  int repetitions = 0;  // turns taken; 0: left out
  int calls = 1;        // steps in a turn; its time is divided by them
};

// Times all contenders by turns, every round in another order (who follows a relative
// finds warm caches), for about `seconds`, and for three rounds at least. Before that
// each has stepped twice, or once where a step takes half a second. A turn lasts 0.1 ms
// at least: several steps of a fast contender. One that may be left out is, if its step
// in the warm-up took more than `slowest` times as long as the fastest one's.
std::vector<Timing> interleave(std::span<const Contender> contenders, double seconds,
                               double slowest = std::numeric_limits<double>::infinity());

}  // namespace pion::bench
