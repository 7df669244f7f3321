// SPDX-License-Identifier: Apache-2.0
// What generation does beside matrix products, on f32 arrays: row by row, no autograd.
// The one source, generation_kernel.cc, is built once per CPU target.
#pragma once

#include <cstddef>

namespace pion::lab {

// floats of a cache line: one vector of the widest target
constexpr std::size_t kDecodeLanes = 16;

// Heads of attention. A sequence's cache of capacity C (a multiple of 16) is, per kv head,
//   keys    (C / 16) x head_dim x 16    16 tokens side by side: a score needs no sum across
//                                       a vector
//   values  C x value_stride()          padded with zeros
struct DecodeShape {
  std::size_t heads, kv_heads, head_dim;
  constexpr std::size_t value_stride() const {
    return (head_dim + kDecodeLanes - 1) / kDecodeLanes * kDecodeLanes;
  }
};

// One sequence's cache in one layer, all kv heads.
struct KvView {
  float* keys;
  float* values;
  std::size_t capacity;
};

// The first `count` tokens of a cache.
struct KvSegment {
  KvView cache;
  std::size_t count;
};

// What happens to a new token's query and key before attention.
struct QueryKeyWork {
  const float* q_norm;  // (head_dim) gains, or null: not normalized
  const float* k_norm;
  float eps;
  const float* cosine;  // (head_dim / 2) at the token's position
  const float* sine;
};

// `bf16`: results are rounded to bf16 wherever the model's own forward pass, in bf16,
// holds a tensor.
struct DecodeKernels {
  // x += delta, unless delta is null; out = x / sqrt(mean(x^2) + eps) * gain. (rows x
  // width)
  void (*add_rms_norm)(float* x, const float* delta, const float* gain, float eps,
                       std::size_t rows, std::size_t width, bool bf16, float* out);
  // qkv: (heads + 2 kv_heads) x head_dim of one token. Normalizes and rotates q in place;
  // puts k, normalized and rotated, and v into the cache as token number `slot`.
  void (*place)(const DecodeShape& shape, const QueryKeyWork& work, float* qkv, bool bf16,
                KvView cache, std::size_t slot);
  // out (heads x head_dim) = attention of q to all tokens of the segments. `scratch` has
  // (heads / kv_heads) * (sum of counts, each rounded up to 16) floats.
  void (*attend)(const DecodeShape& shape, const float* q, const KvSegment* segments,
                 std::size_t segment_count, bool bf16, float* scratch, float* out);
  // out = silu(gate) * up, with gate_up (rows x 2 width): gate first.
  void (*gate)(const float* gate_up, std::size_t rows, std::size_t width, bool bf16,
               float* out);
  // out[i] = exp((logits[i] - highest) * scale), the arguments at most 0; returns the
  // sum.
  double (*exponentials)(const float* logits, std::size_t n, float highest, float scale,
                         float* out);
  // The largest; NaN or infinite if one of them is.
  float (*highest)(const float* logits, std::size_t n);
};

}  // namespace pion::lab
