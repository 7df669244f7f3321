// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace pion::bench {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

inline double microseconds_since(Clock::time_point start) {
  return 1e6 * seconds_since(start);
}

}  // namespace pion::bench
