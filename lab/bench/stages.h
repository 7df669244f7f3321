// SPDX-License-Identifier: Apache-2.0
// Where the time of one block goes, and how near its products come to the peak. One
// thread; the block stays in the caches that hold it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pion/spectral/spectral_map.h"
#include "pion/spectral/tile_policy.h"

namespace pion::bench {

// One stage: its best time, what it multiplies, and the caller's memory that it moves.
struct Stage {
  std::string name;
  double us = 0, flops = 0, bytes = 0;
};

// The operations of one map as pion's kernels of this target do them.
TileWork map_work(const SpectralMap& map, std::int64_t rows, std::int64_t cols,
                  bool bf16);

// The four stages of a step on one (rows x cols) block: scan, load (with the Gram
// matrix), map, update. `precision` is kFast or kAccurate. About `seconds` in all.
std::vector<Stage> measure_stages(std::int64_t rows, std::int64_t cols,
                                  const std::string& rule_label, Precision precision,
                                  double seconds);

// The products of such a block alone, called again and again: X X^T, one m x m product
// (single and split), Q X with the update (with Q alone, and with its rest), and one that
// stays in L1. Needs a target with bf16; nothing without.
std::vector<Stage> measure_products(std::int64_t rows, std::int64_t cols, double seconds);

}  // namespace pion::bench
