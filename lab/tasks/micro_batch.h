// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pion::lab {

// Parts of 0 ... n - 1, each of at most `budget` tokens, or of one row that is longer.
// Rows stay in order, so that neighbours with the same prompt stay together; 0: one part.
std::vector<std::vector<std::int64_t>> micro_batches(std::span<const std::int64_t> tokens,
                                                     std::int64_t budget);

// Rows by length, shortest first, equal ones in order: parts of such rows are even.
std::vector<std::int64_t> by_length(std::span<const std::int64_t> tokens);

}  // namespace pion::lab
