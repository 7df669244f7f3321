// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "pion/optim/routing.h"

namespace pion {

// An attention projection whose head layout is wanted.
struct Projection {
  std::string name;
  Role role;  // kAttentionQ, K, V, O or FusedQkv
  std::int64_t rows, cols;
  bool transposed = false;      // stored (in, out)
  bool interleaved = false;     // fused, head by head: no contiguous Q, K and V
  bool linear = false;          // of a linear attention, which has counts of its own
  std::int64_t query_rows = 0;  // outputs of the query projection beside it; 0 if none
  std::int64_t read = 0;        // inputs of the output projection beside it; 0 if none
};

struct HeadDecision {
  HeadLayout layout;
  std::string reason;  // "8 heads of 64", "head count unknown: taken whole"
};

// Throws std::invalid_argument, naming the parameter, if a count does not divide or
// contradicts another one.
HeadDecision attention_heads(const Projection& projection, const AttentionShape& counts,
                             bool per_head);

}  // namespace pion
