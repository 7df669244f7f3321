// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/micro_batch.h"

#include <algorithm>
#include <numeric>

namespace pion::lab {

std::vector<std::vector<std::int64_t>> micro_batches(std::span<const std::int64_t> tokens,
                                                     std::int64_t budget) {
  std::vector<std::vector<std::int64_t>> parts;
  std::int64_t used = 0;
  for (std::size_t row = 0; row < tokens.size(); ++row) {
    const bool full = budget > 0 && used + tokens[row] > budget;
    if (parts.empty() || full) parts.emplace_back(), used = 0;
    parts.back().push_back(static_cast<std::int64_t>(row));
    used += tokens[row];
  }
  return parts;
}

std::vector<std::int64_t> by_length(std::span<const std::int64_t> tokens) {
  std::vector<std::int64_t> rows(tokens.size());
  std::iota(rows.begin(), rows.end(), 0);
  std::stable_sort(rows.begin(), rows.end(),
                   [&](std::int64_t a, std::int64_t b) { return tokens[a] < tokens[b]; });
  return rows;
}

}  // namespace pion::lab
