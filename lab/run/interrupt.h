// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace pion::lab {

// While one lives, SIGINT and SIGTERM only set a mark, so that an update can be finished
// and saved. A second signal ends the process at once, as ever.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  static bool interrupted();
};

}  // namespace pion::lab
