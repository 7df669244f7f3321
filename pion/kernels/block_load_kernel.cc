// SPDX-License-Identifier: Apache-2.0
// Built once per CPU target with that target's flags, but with -ffp-contract=off: mul,
// mul, add give the same momentum on every target, and as tile_load_kernel.cc.

#include <cstddef>
#include <cstdint>

#include "pion/kernels/block_load_call.h"
#include "pion/kernels/elementwise_lanes.h"
#include "pion/kernels/transpose_block.h"

namespace pion::PION_TARGET {

namespace {

typedef std::int32_t I32 __attribute__((vector_size(4 * PION_LANES)));

// Asks for entries about 2 KiB ahead: in the row, or in a later row where rows are short
// and lie apart.
struct Ahead {
  static constexpr std::size_t kEntries = 512;
  std::size_t rows, entries;
  explicit Ahead(std::size_t cols)
      : rows(cols >= kEntries || cols == 0 ? 0 : (kEntries + cols - 1) / cols),
        entries(rows == 0 ? kEntries : 0) {}
  template <class T>
  void prefetch(const T* x, std::size_t stride) const {
    const std::size_t bytes = (rows * stride + entries) * sizeof(T);
    __builtin_prefetch(
        reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(x) + bytes));
  }
};

struct Direction {
  F32 mu, share, scale;
  bool update_momentum, nesterov;
  I32 largest = {};  // bits of |D|

  explicit Direction(const BlockLoad& call)
      : mu(broadcast(call.mu)),
        share(broadcast(call.share)),
        scale(broadcast(call.scale)),
        update_momentum(call.update_momentum),
        nesterov(call.nesterov) {}

  F32 average(F32 m, F32 g) const { return mu * m + share * g; }

  // PION_LANES entries of X; `momentum` is null or theirs.
  template <class G>
  F32 operator()(const G* gradient, float* momentum) {
    const F32 g = entries(gradient);
    F32 d = g;
    if (momentum != nullptr) {
      F32 m = load(momentum);
      if (update_momentum) {
        m = average(m, g);
        store(momentum, m);
      }
      d = nesterov ? average(m, g) : m;
    }
    const I32 bits = (I32)d & 0x7fffffff;
    largest = bits > largest ? bits : largest;
    return scale * d;
  }
};

template <class G>
std::uint32_t load_rows(const BlockLoad& call, const G* gradient) {
  Direction direction(call);
  const Ahead ahead(call.cols);
  const std::size_t whole = call.cols / PION_LANES * PION_LANES, rest = call.cols - whole;
  for (std::size_t i = 0; i < call.rows; ++i) {
    const G* g = gradient + i * call.gradient_stride;
    float* m =
        call.momentum == nullptr ? nullptr : call.momentum + i * call.momentum_stride;
    float* x = call.x + i * call.x_stride;
    for (std::size_t j = 0; j < whole; j += PION_LANES) {
      ahead.prefetch(g + j, call.gradient_stride);
      if (m != nullptr) ahead.prefetch(m + j, call.momentum_stride);
      store(x + j, direction(g + j, m == nullptr ? nullptr : m + j));
    }
    if (rest == 0) continue;
    const Rest<const G> last_g(g + whole, rest);
    Rest<float> last_m(m == nullptr ? nullptr : m + whole, m == nullptr ? 0 : rest);
    Rest<float> last_x(x + whole, rest);
    store(last_x.entries,
          direction(last_g.entries, m == nullptr ? nullptr : last_m.entries));
    last_m.write_back(), last_x.write_back();
  }
  std::int32_t largest = 0;
  for (std::size_t lane = 0; lane < PION_LANES; ++lane) {
    if (direction.largest[lane] > largest) largest = direction.largest[lane];
  }
  return static_cast<std::uint32_t>(largest);
}

}  // namespace

std::uint32_t load_block(const BlockLoad& call) {
  const std::uint32_t largest = call.gradient != nullptr
                                    ? load_rows(call, call.gradient)
                                    : load_rows(call, call.narrow_gradient);
  if (call.transposed != nullptr) {
    transpose(call.x, call.x_stride, call.rows, call.cols, call.transposed,
              call.transposed_stride);
  }
  return largest;
}

}  // namespace pion::PION_TARGET
