// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>

namespace pion::lab {

// While one lives, SIGINT, SIGTERM and SIGHUP only set a mark, so that an update can be
// finished and saved. A second signal of the same kind ends the process at once, as ever.
// A hang-up that was ignored before, by nohup, stays ignored. Guards may nest: the mark
// is that of the outermost. All of one thread.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  static bool interrupted();
};

// Work that was cut by a signal; what() says how to go on.
class Interrupted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace pion::lab
