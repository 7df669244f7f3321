// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

#include "pion/optim/update_statistics.h"
#include "pion/spectral/spectral_map.h"

namespace pion {

// Means and extremes over the blocks of one parameter.
class SpectrumSummary {
 public:
  void add(const SpectrumStatistics& block, std::size_t blocks) {
    stable_rank_ += block.stable_rank / static_cast<double>(blocks);
    energy_kept_ += block.energy_kept / static_cast<double>(blocks);
    if (block.frobenius_norm <= 0) return;
    sigma_max_ = std::max(sigma_max_, block.sigma_max / block.frobenius_norm);
    largest_ = std::max(largest_, block.frobenius_norm);
    smallest_ =
        smallest_ == 0 ? block.frobenius_norm : std::min(smallest_, block.frobenius_norm);
  }
  void fill(UpdateStatistics& update) const {
    update.stable_rank = stable_rank_;
    update.energy_kept = energy_kept_;
    update.sigma_max = sigma_max_;
    update.head_spread = smallest_ > 0 ? largest_ / smallest_ : 1.0;
  }

 private:
  double stable_rank_ = 0, energy_kept_ = 0, sigma_max_ = 0, smallest_ = 0, largest_ = 0;
};

}  // namespace pion
