// SPDX-License-Identifier: Apache-2.0
// Built once per CPU target with that target's flags. Hence no checks, no allocation
// and no standard header but <cstddef>: an inline function compiled here for AVX-512
// could be the copy the linker keeps for the whole program.

#include <cstddef>

#include "lab/models/generation_kernel_call.h"
#include "lab/models/generation_lanes.h"

namespace pion::lab::PION_TARGET {
namespace {

// x_i <- x_i / sqrt(mean(x^2) + eps) * gain_i for one head.
void normalize_head(float* x, const float* gain, float eps, size_t n, bool bf16) {
  float squares = 0;
  for (size_t i = 0; i < n; ++i) squares += x[i] * x[i];
  const float scale = 1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + eps);
  for (size_t i = 0; i < n; ++i)
    x[i] = rounded(gain[i] * rounded(x[i] * scale, bf16), bf16);
}

void rotate_head(float* x, const QueryKeyWork& work, size_t n, bool bf16) {
  for (size_t i = 0; i < n / 2; ++i) {
    const float a = x[i], b = x[i + n / 2], c = work.cosine[i], s = work.sine[i];
    if (bf16) {
      x[i] = rounded(rounded(a * c, true) + rounded(-b * s, true), true);
      x[i + n / 2] = rounded(rounded(b * c, true) + rounded(a * s, true), true);
    } else {
      x[i] = a * c - b * s;
      x[i + n / 2] = b * c + a * s;
    }
  }
}

void add_rms_norm(float* x, const float* delta, const float* gain, float eps, size_t rows,
                  size_t width, bool bf16, float* out) {
  for (size_t row = 0; row < rows; ++row, x += width, out += width) {
    Lanes squares = {};
    for (size_t i = 0; i < width; i += kLanes) {
      const size_t n = width - i;
      Lanes v = n >= kLanes ? load(x + i) : load_part(x + i, n, 0);
      if (delta) {
        const float* d = delta + row * width + i;
        v = rounded(v + (n >= kLanes ? load(d) : load_part(d, n, 0)), bf16);
        n >= kLanes ? store(x + i, v) : store_part(x + i, v, n);
      }
      squares += v * v;
    }
    const float scale =
        1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + eps);
    for (size_t i = 0; i < width; i += kLanes) {
      const size_t n = width - i;
      const bool whole = n >= kLanes;
      const Lanes v = whole ? load(x + i) : load_part(x + i, n, 0);
      const Lanes g = whole ? load(gain + i) : load_part(gain + i, n, 0);
      const Lanes y = rounded(g * rounded(v * scale, bf16), bf16);
      whole ? store(out + i, y) : store_part(out + i, y, n);
    }
  }
}

void place(const DecodeShape& shape, const QueryKeyWork& work, float* qkv, bool bf16,
           KvView cache, size_t slot) {
  const size_t dim = shape.head_dim;
  for (size_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
    float* x = qkv + head * dim;
    const float* gain = head < shape.heads ? work.q_norm : work.k_norm;
    if (gain) normalize_head(x, gain, work.eps, dim, bf16);
    rotate_head(x, work, dim, bf16);
  }
  const float* k = qkv + shape.heads * dim;
  const float* v = k + shape.kv_heads * dim;
  for (size_t head = 0; head < shape.kv_heads; ++head, k += dim, v += dim) {
    float* keys = cache.keys + (head * cache.capacity + slot / kLanes * kLanes) * dim;
    for (size_t d = 0; d < dim; ++d) keys[d * kLanes + slot % kLanes] = k[d];
    float* values = cache.values + (head * cache.capacity + slot) * shape.value_stride();
    for (size_t d = 0; d < dim; ++d) values[d] = v[d];
  }
}

// Scores of kCount queries with 16 keys each; two chains a query hide the add latency.
template <size_t kCount>
inline void score_tiles(const float* q, size_t dim, const float* keys, size_t tiles,
                        float scale, float* scores, size_t stride) {
  for (size_t tile = 0; tile < tiles; ++tile, keys += dim * kLanes) {
    Lanes even[kCount] = {}, odd[kCount] = {};
    for (size_t d = 0; d < dim; d += 2) {
      const Lanes a = load(keys + d * kLanes), b = load(keys + (d + 1) * kLanes);
      for (size_t g = 0; g < kCount; ++g) {
        even[g] += a * q[g * dim + d];
        odd[g] += b * q[g * dim + d + 1];
      }
    }
    for (size_t g = 0; g < kCount; ++g)
      store(scores + g * stride + tile * kLanes, (even[g] + odd[g]) * scale);
  }
}

// out (kCount x 16) += weights (kCount x count) times 16 columns of values.
template <size_t kCount>
inline void mix_values(const float* weights, size_t stride, const float* values,
                       size_t value_stride, size_t count, Lanes* out) {
  Lanes even[kCount] = {}, odd[kCount] = {};
  size_t t = 0;
  for (; t + 2 <= count; t += 2, values += 2 * value_stride) {
    const Lanes a = load(values), b = load(values + value_stride);
    for (size_t g = 0; g < kCount; ++g) {
      even[g] += a * weights[g * stride + t];
      odd[g] += b * weights[g * stride + t + 1];
    }
  }
  if (t < count)
    for (size_t g = 0; g < kCount; ++g) even[g] += load(values) * weights[g * stride + t];
  for (size_t g = 0; g < kCount; ++g) out[g] += even[g] + odd[g];
}

// scores -> exp(score - largest), the padding of each segment 0; returns the sum.
float soften(float* scores, const KvSegment* segments, size_t segment_count) {
  Lanes top = all(-__builtin_inff());
  float* x = scores;
  for (size_t s = 0; s < segment_count; ++s)
    for (size_t t = 0; t < segments[s].count; t += kLanes, x += kLanes) {
      const size_t n = segments[s].count - t;
      const Lanes v = n >= kLanes ? load(x) : load_part(x, n, -__builtin_inff());
      store(x, v);
      top = v > top ? v : top;
    }
  const Lanes highest = all(largest(top));
  Lanes total = {};
  for (float* y = scores; y < x; y += kLanes) {
    const Lanes weight = exponential(load(y) - highest);
    store(y, weight);
    total += weight;
  }
  return sum(total);
}

struct HeadWork {
  const DecodeShape& shape;
  const KvSegment* segments;
  size_t segment_count, stride;  // stride: of the scores of one query
  float* scratch;
  bool bf16;
};

// kCount queries of one kv head.
template <size_t kCount>
void attend_heads(const HeadWork& work, size_t kv_head, const float* q, float* out) {
  const size_t dim = work.shape.head_dim, width = work.shape.value_stride();
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(dim));
  size_t at = 0;
  for (size_t s = 0; s < work.segment_count; ++s) {
    const KvSegment& one = work.segments[s];
    const size_t tiles = (one.count + kLanes - 1) / kLanes;
    score_tiles<kCount>(q, dim, one.cache.keys + kv_head * one.cache.capacity * dim,
                        tiles, scale, work.scratch + at, work.stride);
    at += tiles * kLanes;
  }
  float inverse[kCount];
  for (size_t g = 0; g < kCount; ++g)
    inverse[g] =
        1.0f / soften(work.scratch + g * work.stride, work.segments, work.segment_count);
  for (size_t d = 0; d < dim; d += kLanes) {
    Lanes mixed[kCount] = {};
    at = 0;
    for (size_t s = 0; s < work.segment_count; ++s) {
      const KvSegment& one = work.segments[s];
      mix_values<kCount>(work.scratch + at, work.stride,
                         one.cache.values + kv_head * one.cache.capacity * width + d,
                         width, one.count, mixed);
      at += (one.count + kLanes - 1) / kLanes * kLanes;
    }
    for (size_t g = 0; g < kCount; ++g) {
      const Lanes y = rounded(mixed[g] * inverse[g], work.bf16);
      const size_t n = dim - d;
      n >= kLanes ? store(out + g * dim + d, y) : store_part(out + g * dim + d, y, n);
    }
  }
}

void attend(const DecodeShape& shape, const float* q, const KvSegment* segments,
            size_t segment_count, bool bf16, float* scratch, float* out) {
  size_t stride = 0;
  for (size_t s = 0; s < segment_count; ++s)
    stride += (segments[s].count + kLanes - 1) / kLanes * kLanes;
  const HeadWork work{shape, segments, segment_count, stride, scratch, bf16};
  const size_t group = shape.heads / shape.kv_heads;
  for (size_t head = 0; head < shape.heads;) {
    const size_t kv_head = head / group;
    const size_t left = (kv_head + 1) * group - head;
    const float* first = q + head * shape.head_dim;
    float* to = out + head * shape.head_dim;
    if (left >= 4) {
      attend_heads<4>(work, kv_head, first, to);
      head += 4;
    } else if (left >= 2) {
      attend_heads<2>(work, kv_head, first, to);
      head += 2;
    } else {
      attend_heads<1>(work, kv_head, first, to);
      head += 1;
    }
  }
}

void gate(const float* gate_up, size_t rows, size_t width, bool bf16, float* out) {
  for (size_t row = 0; row < rows; ++row, gate_up += 2 * width, out += width)
    for (size_t i = 0; i < width; i += kLanes) {
      const size_t n = width - i;
      const bool whole = n >= kLanes;
      const Lanes g = whole ? load(gate_up + i) : load_part(gate_up + i, n, 0);
      const float* second = gate_up + width + i;
      const Lanes up = whole ? load(second) : load_part(second, n, 0);
      // exp(-|g|) <= 1 serves both signs
      const Lanes e = exponential(g < 0 ? g : -g);
      const Lanes sigmoid = (g < 0 ? e : all(1)) / (1 + e);
      const Lanes y = rounded(rounded(g * sigmoid, bf16) * up, bf16);
      whole ? store(out + i, y) : store_part(out + i, y, n);
    }
}

double exponentials(const float* logits, size_t n, float highest, float scale,
                    float* out) {
  constexpr size_t kBlock = 1024;  // summed in f32, their totals in double
  double total = 0;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const size_t end = begin + kBlock < n ? begin + kBlock : n;
    Lanes block = {};
    for (size_t i = begin; i < end; i += kLanes) {
      const size_t left = end - i;
      const bool whole = left >= kLanes;
      const Lanes x =
          whole ? load(logits + i) : load_part(logits + i, left, -__builtin_inff());
      const Lanes e = exponential((x - highest) * scale);
      whole ? store(out + i, e) : store_part(out + i, e, left);
      block += e;
    }
    total += double{sum(block)};
  }
  return total;
}

float highest(const float* logits, size_t n) {
  Lanes top = all(logits[0]), zero = {};
  for (size_t i = 0; i < n; i += kLanes) {
    const size_t left = n - i;
    const Lanes x =
        left >= kLanes ? load(logits + i) : load_part(logits + i, left, logits[i]);
    zero += x * 0.0f;  // stays 0 unless a value is not finite
    top = x > top ? x : top;
  }
  return largest(top) + sum(zero);
}

}  // namespace

extern const DecodeKernels kDecodeKernels;
const DecodeKernels kDecodeKernels = {add_rms_norm, place,        attend,
                                      gate,         exponentials, highest};

}  // namespace pion::lab::PION_TARGET
