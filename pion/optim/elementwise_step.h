// SPDX-License-Identifier: Apache-2.0
// What the element-wise rules share. A step first measures the whole gradient and looks
// for NaN and Inf, then changes weight and state; both chunk by chunk, and chunks may be
// taken by different threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "pion/bfloat16.h"
#include "pion/optim/adamw.h"
#include "pion/optim/sgd.h"
#include "pion/optim/update_statistics.h"

namespace pion {

// Entries of one chunk. Sums are taken within chunks, then over the chunks in order, so
// that they do not depend on the threads. 5 us of AdamW: ten times what a task costs.
inline constexpr std::size_t kChunkEntries = 8192;

inline std::size_t chunk_count(std::size_t entries) {
  return (entries + kChunkEntries - 1) / kChunkEntries;
}

// Entries [first, first + size) of an array.
struct Chunk {
  std::size_t first, size;
};
inline Chunk chunk_of(std::size_t index, std::size_t entries) {
  const std::size_t first = index * kChunkEntries;
  return {first, std::min(kChunkEntries, entries - first)};
}

// A run of entries of a gradient as the rule meets them.
template <class G>
struct GradientRun {
  const G* data;
  bool negated = false;         // the rule steps along the gradient
  bool zero_nonfinite = false;  // NonFinite::kZero, and some entry is not finite
};

struct RunScan {
  double squares = 0;  // sum of g^2; of no use if not finite
  bool finite = true;  // every entry is
  void add(const RunScan& next) { squares += next.squares, finite &= next.finite; }
};
template <class T, class G>
RunScan scan_run(const GradientRun<G>& gradient, std::size_t n);

// The numbers of one step of one rule, as adamw.h and sgd.h have them.
struct ElementwiseScalars {
  ElementwiseScalars(const AdamWRule& rule, std::int64_t step);
  ElementwiseScalars(const SgdRule& rule, std::int64_t step);

  bool adamw;
  bool moves;  // lr != 0
  double decay;
  // AdamW
  double beta1 = 0, beta2 = 0, eps = 0, step_size = 0, inverse_correction = 0;
  // SGD
  double lr = 0, momentum = 0, share = 0;
  bool first = false, nesterov = false;
};

// Weight and state of a run of entries. AdamW: exp_avg and exp_avg_sq. SGD: the momentum
// buffer, unless momentum is 0.
template <class T>
struct ElementwiseRun {
  T *weight, *state = nullptr, *second_state = nullptr;
  ElementwiseRun from(std::size_t first) const {
    const auto moved = [first](T* x) { return x == nullptr ? nullptr : x + first; };
    return {weight + first, moved(state), moved(second_state)};
  }
};

// Steps n entries in place; returns the sum of the squares of lr times direction.
template <class T, class G>
double step_run(const ElementwiseScalars& scalars, const ElementwiseRun<T>& run,
                const GradientRun<G>& gradient, std::size_t n);

// The whole step of one array of n entries. Throws under kRaise if an entry of the
// gradient is not finite; `where` begins the message.
template <class T, class G>
UpdateStatistics elementwise_step(const ElementwiseScalars& scalars, NonFinite policy,
                                  const ElementwiseRun<T>& run, const G* gradient,
                                  std::size_t n, const char* where);

// Throws std::invalid_argument that begins with `where` if sizes differ or step < 1.
void check_size(const char* where, const char* what, std::size_t size,
                std::size_t wanted);
void check_step(const char* where, std::int64_t step);

}  // namespace pion
