// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "pion/optim/rule.h"
#include "pion/optim/update_statistics.h"

namespace pion {

// Watches for updates that stay empty: returns a warning once, after `patience`
// consecutive steps whose matrices passed less than half a direction although the
// gradient was not zero; it names the parameter, the cutoff and what to change. Skipped
// steps and zero gradients neither count nor end the count. Returns "" otherwise, and
// always for element-wise rules.
class EmptyUpdateWatch {
 public:
  explicit EmptyUpdateWatch(int patience = 20) : patience_(patience) {}
  std::string observe(std::string_view parameter, const Rule& rule,
                      const UpdateStatistics& what);
  int consecutive() const { return consecutive_; }
  void restore(int consecutive, bool warned) {
    consecutive_ = consecutive, warned_ = warned;
  }
  bool warned() const { return warned_; }

 private:
  int patience_;
  int consecutive_ = 0;
  bool warned_ = false;
};

}  // namespace pion
