// SPDX-License-Identifier: Apache-2.0
// Attention of short sequences in training, forward and back, on tokens where they lie:
// nothing is padded or gathered in memory. f32. The one source,
// causal_lm_attention_kernel.cc, is built once per CPU target.
#pragma once

#include <cstddef>

namespace pion::lab {

// Tokens [begin, begin + length) of one sequence; the keys before its own are those of
// tokens [earlier, earlier + earlier_length).
struct AttentionRun {
  std::size_t begin, length, earlier, earlier_length;
};

struct AttentionInput {
  const float *q, *k, *v;      // (tokens x heads x dim), twice (tokens x kv_heads x dim)
  const float *cosine, *sine;  // (tokens x dim), of which the first halves are read
  std::size_t heads, kv_heads, dim;
};

// One kv head and the query heads that share it: out = softmax(q' k'^T / sqrt(dim)) v
// with q', k' rotated by the angle of their token, each query over the keys up to its
// own.
struct AttentionKernels {
  // Floats of scratch.
  std::size_t (*scratch)(const AttentionRun& run, std::size_t dim);
  // Writes out (tokens x heads x dim), and log_sums (tokens x heads): the logarithms of
  // the softmax's denominators, for the way back.
  void (*forward)(const AttentionInput& input, const AttentionRun& run,
                  std::size_t kv_head, float* scratch, float* out, float* log_sums);
  // From `gradient` of out: writes to_q, adds to to_k and to_v.
  void (*backward)(const AttentionInput& input, const AttentionRun& run,
                   std::size_t kv_head, const float* out, const float* log_sums,
                   const float* gradient, float* scratch, float* to_q, float* to_k,
                   float* to_v);
};

}  // namespace pion::lab
