// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace pion {

// What one step did to one parameter. Element-wise rules fill the first three.
struct UpdateStatistics {
  bool skipped = false;          // non-finite gradient under NonFinite::kSkip
  double gradient_norm = 0;      // ||G||_F; 0 if skipped
  double update_rms = 0;         // root mean square of lr s O, without weight decay
  double directions_passed = 0;  // sum of ||O||_F^2 over blocks
  double directions = 0;         // sum of min(rows, cols) over blocks
  double stable_rank = 0;        // mean over blocks
  double sigma_max = 0;          // largest over blocks, relative to that block's ||D||_F
  double energy_kept = 0;        // mean over blocks
  double head_spread = 0;  // largest / smallest block norm of D; blocks of norm 0 do not
                           // count; 1 for one block
  double half_pass = 0;  // Pion: the singular value, relative to the norm, of which half
                         // passes; the largest over blocks
  // Matrices of a stack that were left alone, since their gradient was zero. They count
  // in no sum, mean or extreme above but update_rms, where they are zeros.
  std::int64_t idle = 0;
};

}  // namespace pion
