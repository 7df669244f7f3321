// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pion/optim/rule.h"
#include "pion/optim/update_statistics.h"

namespace pion {

// The ||O||_F^2 below which an update counts as empty. Half a direction where the map
// passes or stops each; under Muon, which stops none, half of the least that any momentum
// leaves: with singular values s_i of X and sum s_i^2 = t^2 (t = 1, or 1 / norm_margin),
// sum f(s_i)^2 is at least t^2 min (f(s) / s)^2 over (0, t]. Classic coefficients take
// s = 1 to 0.6965, so that a gradient of rank 1 passes 0.485.
double empty_below(const Rule& rule);

// Watches for updates that stay empty: returns a warning once, after `patience`
// consecutive steps that passed less than empty_below() although the gradient was not
// zero; it names the parameter, the cutoff and what to change. Skipped steps and
// zero gradients neither count nor end the count. The matrices of a stack are watched one
// by one, and named by their numbers from 0. Returns "" otherwise, and always for
// element-wise rules.
class EmptyUpdateWatch {
 public:
  explicit EmptyUpdateWatch(int patience = 20) : patience_(patience) {}
  std::string observe(std::string_view parameter, const Rule& rule,
                      const UpdateStatistics& what,
                      std::span<const UpdateStatistics> matrices = {});
  int consecutive() const { return consecutive_; }  // the most of all matrices
  void restore(int consecutive, bool warned) {
    consecutive_ = consecutive, warned_ = warned;
    counts_.clear();
  }
  bool warned() const { return warned_; }

 private:
  int patience_;
  int consecutive_ = 0;
  bool warned_ = false;
  std::vector<int> counts_;  // by matrix
};

}  // namespace pion
