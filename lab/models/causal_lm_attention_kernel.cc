// SPDX-License-Identifier: Apache-2.0
// Built once per CPU target with that target's flags; see generation_kernel.cc.

#include <cstddef>

#include "lab/models/causal_lm_attention_kernel_call.h"
#include "lab/models/generation_lanes.h"

namespace pion::lab::PION_TARGET {
namespace {

// Sums that a tile keeps in registers: kTileRows rows of kTileLanes vectors.
constexpr size_t kTileRows = 4;
#if defined(__AVX512F__)
constexpr size_t kTileLanes = 2;
#else
constexpr size_t kTileLanes = 1;
#endif

constexpr size_t up(size_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// c (rows x columns) = a (rows x count) b (count x columns), or added to c. a's entries
// may lie in either order; columns is a multiple of 16.
struct Product {
  const float* a;
  size_t a_row, a_step;  // from row to row, and along the sum
  const float* b;
  size_t b_row, count;
  float* c;
  size_t c_row;
  bool add;
};

template <size_t kRows, size_t kVectors>
inline void tile(const Product& p, size_t column) {
  Lanes sums[kRows][kVectors] = {};
  const float* a = p.a;
  const float* b = p.b + column;
  for (size_t k = 0; k < p.count; ++k, a += p.a_step, b += p.b_row) {
    Lanes right[kVectors];
    for (size_t v = 0; v < kVectors; ++v) right[v] = load(b + v * kLanes);
    for (size_t r = 0; r < kRows; ++r)
      for (size_t v = 0; v < kVectors; ++v) sums[r][v] += right[v] * a[r * p.a_row];
  }
  for (size_t r = 0; r < kRows; ++r)
    for (size_t v = 0; v < kVectors; ++v) {
      float* to = p.c + r * p.c_row + column + v * kLanes;
      store(to, p.add ? load(to) + sums[r][v] : sums[r][v]);
    }
}

template <size_t kRows>
inline void strip(Product& p, size_t columns) {
  size_t column = 0;
  for (; column + kTileLanes * kLanes <= columns; column += kTileLanes * kLanes)
    tile<kRows, kTileLanes>(p, column);
  for (; column < columns; column += kLanes) tile<kRows, 1>(p, column);
  p.a += kRows * p.a_row;
  p.c += kRows * p.c_row;
}

void multiply(Product p, size_t rows, size_t columns) {
  static_assert(kTileRows == 4);
  for (; rows >= kTileRows; rows -= kTileRows) strip<kTileRows>(p, columns);
  if (rows == 3) strip<3>(p, columns);
  if (rows == 2) strip<2>(p, columns);
  if (rows == 1) strip<1>(p, columns);
}

struct Angle {
  const float *cosine, *sine;
};

// x rotated by an angle, times `factor`. direction -1: back.
inline void rotate(const float* x, Angle angle, float direction, float factor, size_t dim,
                   float* out) {
  const size_t half = dim / 2;
  size_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Lanes a = load(x + i), b = load(x + half + i);
    const Lanes c = load(angle.cosine + i) * factor;
    const Lanes s = load(angle.sine + i) * (direction * factor);
    store(out + i, a * c - b * s);
    store(out + half + i, b * c + a * s);
  }
  for (; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    const float c = angle.cosine[i] * factor, s = angle.sine[i] * (direction * factor);
    out[i] = a * c - b * s;
    out[half + i] = b * c + a * s;
  }
}

inline void copy(const float* x, size_t dim, float* out) {
  for (size_t i = 0; i < dim; ++i) out[i] = x[i];
}

// What lies in scratch, for one run and one kv head.
struct Work {
  const AttentionInput& input;
  const AttentionRun& run;
  size_t kv_head, keys, stride, width;  // stride of a row of keys, width of a padded head
  float *k_across, *v_across;           // (dim x stride)
  float *k, *v, *to_k, *to_v;           // (keys x width)
  float *q, *gradient, *mixed;          // (length x width)
  float *weights, *slopes;              // (length x stride)
  float* along;                         // (length)

  size_t key_token(size_t j) const {
    return j < run.earlier_length ? run.earlier + j : run.begin + j - run.earlier_length;
  }
  size_t key_offset(size_t j) const {
    return (key_token(j) * input.kv_heads + kv_head) * input.dim;
  }
  size_t query_offset(size_t i, size_t head) const {
    return ((run.begin + i) * input.heads + head) * input.dim;
  }
  Angle angle(size_t token) const {
    return {input.cosine + token * input.dim, input.sine + token * input.dim};
  }
  size_t group() const { return input.heads / input.kv_heads; }
  // Keys that query i sees.
  size_t seen(size_t i) const { return run.earlier_length + i + 1; }
  // Columns of scores that queries up to i fill: the way back reads kTileRows more.
  size_t columns(size_t i) const {
    const size_t filled = up(seen(i) + kTileRows);
    return filled < stride ? filled : stride;
  }
};

Work lay_out(const AttentionInput& input, const AttentionRun& run, size_t kv_head,
             float* scratch) {
  const size_t keys = run.earlier_length + run.length;
  const size_t stride = up(keys), width = up(input.dim);
  const auto take = [&](size_t rows, size_t columns) {
    float* mine = scratch;
    scratch += rows * columns;
    return mine;
  };
  // in the order of the members
  return {input,
          run,
          kv_head,
          keys,
          stride,
          width,
          take(width, stride),
          take(width, stride),
          take(keys, width),
          take(keys, width),
          take(keys, width),
          take(keys, width),
          take(run.length, width),
          take(run.length, width),
          take(run.length, width),
          take(run.length, stride),
          take(run.length, stride),
          take(run.length, 1)};
}

size_t scratch(const AttentionRun& run, size_t dim) {
  const size_t keys = run.earlier_length + run.length, width = up(dim);
  return 2 * width * up(keys) + 4 * keys * width + 3 * run.length * width +
         2 * run.length * up(keys) + run.length;
}

void clear(float* x, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] = 0;
}

void across(const float* x, size_t rows, size_t width, size_t dim, size_t stride,
            float* out) {
  for (size_t d = 0; d < dim; ++d) {
    for (size_t j = 0; j < rows; ++j) out[d * stride + j] = x[j * width + d];
    for (size_t j = rows; j < stride; ++j) out[d * stride + j] = 0;
  }
}

void take_keys(const Work& work) {
  const size_t dim = work.input.dim;
  clear(work.k, work.keys * work.width);
  clear(work.v, work.keys * work.width);
  for (size_t j = 0; j < work.keys; ++j) {
    rotate(work.input.k + work.key_offset(j), work.angle(work.key_token(j)), 1, 1, dim,
           work.k + j * work.width);
    copy(work.input.v + work.key_offset(j), dim, work.v + j * work.width);
  }
  across(work.k, work.keys, work.width, dim, work.stride, work.k_across);
}

// Queries of a head, which also carry 1 / sqrt(dim).
void take_queries(const Work& work, size_t head) {
  const size_t dim = work.input.dim;
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(dim));
  if (dim < work.width) clear(work.q, work.run.length * work.width);
  for (size_t i = 0; i < work.run.length; ++i)
    rotate(work.input.q + work.query_offset(i, head), work.angle(work.run.begin + i), 1,
           scale, dim, work.q + i * work.width);
}

// Rows [first, first + rows) of a (length x dim) times b across (dim x stride): a number
// for each query and key, of keys that one of the rows sees.
void scores(const Work& work, const float* a, const float* b, size_t first, size_t rows,
            float* out) {
  multiply({a + first * work.width, work.width, 1, b, work.stride, work.input.dim,
            out + first * work.stride, work.stride, false},
           rows, work.columns(first + rows - 1));
}

// Scores to weights, 0 behind what a query sees, up to `columns`. Returns the logarithm
// of the denominator.
float soften(float* x, size_t seen, size_t columns) {
  Lanes top = all(-__builtin_inff());
  for (size_t j = 0; j < columns; j += kLanes) {
    if (j + kLanes > seen) {
      const size_t n = seen > j ? seen - j : 0;
      store(x + j, load_part(x + j, n, -__builtin_inff()));
    }
    const Lanes v = load(x + j);
    top = v > top ? v : top;
  }
  const float highest = largest(top);
  Lanes total = {};
  for (size_t j = 0; j < columns; j += kLanes) {
    const Lanes e = exponential(load(x + j) - highest);
    store(x + j, e);
    total += e;
  }
  const float denominator = sum(total);
  const Lanes inverse = all(1.0f / denominator);
  for (size_t j = 0; j < columns; j += kLanes) store(x + j, load(x + j) * inverse);
  return highest + __builtin_logf(denominator);
}

void forward(const AttentionInput& input, const AttentionRun& run, size_t kv_head,
             float* scratch, float* out, float* log_sums) {
  const Work work = lay_out(input, run, kv_head, scratch);
  take_keys(work);
  for (size_t head = kv_head * work.group(); head < (kv_head + 1) * work.group();
       ++head) {
    take_queries(work, head);
    for (size_t first = 0; first < run.length; first += kTileRows) {
      const size_t left = run.length - first;
      const size_t rows = left < kTileRows ? left : kTileRows;
      const size_t seen = work.seen(first + rows - 1);
      float* weights = work.weights + first * work.stride;
      scores(work, work.q, work.k_across, first, rows, work.weights);
      for (size_t r = 0; r < rows; ++r)
        log_sums[(run.begin + first + r) * input.heads + head] =
            soften(weights + r * work.stride, work.seen(first + r),
                   work.columns(first + rows - 1));
      multiply({weights, work.stride, 1, work.v, work.width, seen, work.mixed, work.width,
                false},
               rows, work.width);
      for (size_t r = 0; r < rows; ++r)
        copy(work.mixed + r * work.width, input.dim,
             out + work.query_offset(first + r, head));
    }
  }
}

// The gradient of out of one head, and of it and out the products row by row.
void take_gradients(const Work& work, size_t head, const float* gradient,
                    const float* out) {
  const size_t dim = work.input.dim;
  if (dim < work.width) clear(work.gradient, work.run.length * work.width);
  for (size_t i = 0; i < work.run.length; ++i) {
    const size_t at = work.query_offset(i, head);
    copy(gradient + at, dim, work.gradient + i * work.width);
    float total = 0;
    for (size_t d = 0; d < dim; ++d) total += gradient[at + d] * out[at + d];
    work.along[i] = total;
  }
}

// Scores of query i to weights, and products of gradient and value to slopes of scores;
// both 0 behind what it sees.
void slopes_of(const Work& work, size_t i, float log_sum, size_t columns) {
  const size_t seen = work.seen(i);
  float* weight_row = work.weights + i * work.stride;
  float* slope_row = work.slopes + i * work.stride;
  for (size_t j = 0; j < columns; j += kLanes) {
    const size_t n = seen > j ? seen - j : 0;
    Lanes weight = exponential(load(weight_row + j) - log_sum);
    if (n < kLanes) weight = load_part((const float*)&weight, n, 0);
    store(weight_row + j, weight);
    store(slope_row + j, weight * (load(slope_row + j) - work.along[i]));
  }
}

// Writes the gradient of a head's queries.
void query_gradients(const Work& work, size_t head, const float* log_sums, float* to_q) {
  const AttentionRun& run = work.run;
  const size_t dim = work.input.dim;
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(dim));
  for (size_t first = 0; first < run.length; first += kTileRows) {
    const size_t left = run.length - first;
    const size_t rows = left < kTileRows ? left : kTileRows, last = first + rows - 1;
    scores(work, work.q, work.k_across, first, rows, work.weights);
    scores(work, work.gradient, work.v_across, first, rows, work.slopes);
    for (size_t i = first; i <= last; ++i)
      slopes_of(work, i, log_sums[(run.begin + i) * work.input.heads + head],
                work.columns(last));
    multiply({work.slopes + first * work.stride, work.stride, 1, work.k, work.width,
              work.seen(last), work.mixed, work.width, false},
             rows, work.width);
    for (size_t r = 0; r < rows; ++r)
      rotate(work.mixed + r * work.width, work.angle(run.begin + first + r), -1, scale,
             dim, to_q + work.query_offset(first + r, head));
  }
}

// Adds a head's part to the gradients of keys and values in scratch.
void key_gradients(const Work& work) {
  const AttentionRun& run = work.run;
  for (size_t j = 0; j < work.keys; j += kTileRows) {
    const size_t rows = work.keys - j < kTileRows ? work.keys - j : kTileRows;
    // the first query that sees key j, down to the tile that holds it
    const size_t first =
        j > run.earlier_length ? (j - run.earlier_length) / kTileRows * kTileRows : 0;
    const size_t count = run.length - first, at = first * work.stride + j;
    multiply({work.weights + at, 1, work.stride, work.gradient + first * work.width,
              work.width, count, work.to_v + j * work.width, work.width, true},
             rows, work.width);
    multiply({work.slopes + at, 1, work.stride, work.q + first * work.width, work.width,
              count, work.to_k + j * work.width, work.width, true},
             rows, work.width);
  }
}

void backward(const AttentionInput& input, const AttentionRun& run, size_t kv_head,
              const float* out, const float* log_sums, const float* gradient,
              float* scratch, float* to_q, float* to_k, float* to_v) {
  const Work work = lay_out(input, run, kv_head, scratch);
  const size_t width = work.width, dim = input.dim;
  take_keys(work);
  across(work.v, work.keys, width, dim, work.stride, work.v_across);
  clear(work.to_k, work.keys * width);
  clear(work.to_v, work.keys * width);
  for (size_t head = kv_head * work.group(); head < (kv_head + 1) * work.group();
       ++head) {
    take_queries(work, head);
    take_gradients(work, head, gradient, out);
    query_gradients(work, head, log_sums, to_q);
    key_gradients(work);
  }
  for (size_t j = 0; j < work.keys; ++j) {
    float* turned = work.mixed;
    rotate(work.to_k + j * width, work.angle(work.key_token(j)), -1, 1, dim, turned);
    const float* v_row = work.to_v + j * width;
    float *k_sum = to_k + work.key_offset(j), *v_sum = to_v + work.key_offset(j);
    for (size_t d = 0; d < dim; ++d) k_sum[d] += turned[d];
    for (size_t d = 0; d < dim; ++d) v_sum[d] += v_row[d];
  }
}

}  // namespace

extern const AttentionKernels kAttentionKernels;
const AttentionKernels kAttentionKernels = {scratch, forward, backward};

}  // namespace pion::lab::PION_TARGET
