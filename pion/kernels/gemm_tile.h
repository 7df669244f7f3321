// SPDX-License-Identifier: Apache-2.0
// One register tile of a product, for gemm_kernel.cc of every CPU target.
#pragma once

#include <cstddef>

#include "pion/kernels/gemm_tile_end.h"
#include "pion/kernels/lanes.h"

namespace pion::PION_TARGET {

namespace {

// A tile's columns: 2 vectors. 12 x 2 sums, 2 vectors of B and one of A fill the 32
// registers of AVX-512, 6 x 2 the 16 of AVX2.
template <class T>
constexpr std::size_t kTileCols = 2 * Lanes<T>::kCount;
constexpr std::size_t kTileRows = PION_LANES == 16 ? 12 : PION_LANES == 8 ? 6 : 4;

// Rows of the next tile when `left` are left, for tiles that are one or two vectors wide.
// At least 8 sums hide the latency of the multiply-adds: 4 cycles, 2 a cycle.
inline std::size_t next_tile_rows(std::size_t vectors, std::size_t left) {
  if (PION_LANES == 16) {
    if (vectors == 1 && left >= 16) return 16;
    if (vectors == 2 && left >= 12 && left != 16) return 12;  // 16 = 8 + 8
    if (left >= 8) return 8;
  }
  if (PION_LANES == 8) {
    if (vectors == 1 && left >= 8) return 8;
    if (vectors == 2 && left >= 6 && left != 8) return 6;  // 8 = 4 + 4
  }
  return left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

// The B of a tile. Its first tile may copy it, for the others.
template <class T>
struct Panel {
  const T* data;  // row p at data + p * step
  std::size_t step;
  T* copy = nullptr;        // gets the rows side by side; or nullptr
  const T* next = nullptr;  // another panel, to be fetched in the meantime; or nullptr
  std::size_t next_step = 0;
};

// How a tile reads its operands. Entry (r, p) of A lies at a[r + p * a_step], or at
// a[r * a_step + p] if read by row.
enum class Reading { kByDepth, kByDepthCopying, kByRow };

// kRows rows of A times kVectors vectors of columns of B, in one chain of multiply-adds
// an entry.
template <class T, std::size_t kRows, std::size_t kVectors, Reading kReading>
[[gnu::noinline]] void multiply_tile(std::size_t depth, const T* a, std::size_t a_step,
                                     const Panel<T>& panel, std::size_t cols,
                                     const TileEnd<T>& end) {
  using Vector = typename Lanes<T>::Vector;
  constexpr std::size_t kCount = Lanes<T>::kCount;
  constexpr bool kByRow = kReading == Reading::kByRow;
  const T* b = panel.data;
  [[maybe_unused]] T* copy = panel.copy;
  const std::size_t b_step = panel.step;
  prefetch_end<T, kRows, kVectors>(end);
  Vector sum[kRows][kVectors] = {};
  for (std::size_t p = 0; p < depth; ++p, b += b_step, a += kByRow ? 1 : a_step) {
    Vector row[kVectors];
#pragma GCC unroll 2
    for (std::size_t v = 0; v < kVectors; ++v) row[v] = load(b + v * kCount);
    if constexpr (kReading == Reading::kByDepthCopying) {
#pragma GCC unroll 2
      for (std::size_t v = 0; v < kVectors; ++v, copy += kCount) store(copy, row[v]);
    }
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kRows; ++r) {
      const T factor = kByRow ? a[r * a_step] : a[r];
#pragma GCC unroll 2
      for (std::size_t v = 0; v < kVectors; ++v) sum[r][v] += factor * row[v];
    }
  }
  if (cols >= kVectors * kCount) {
    end_tile<true, T>(sum, cols, end);
  } else {
    end_tile<false, T>(sum, cols, end);
  }
}

template <class T>
using TileKernel = void (*)(std::size_t depth, const T* a, std::size_t a_step,
                            const Panel<T>& panel, std::size_t cols,
                            const TileEnd<T>& end);

// The kernel of a tile of that many rows, as next_tile_rows gives them.
template <class T, std::size_t kVectors, Reading kReading>
TileKernel<T> tile_kernel(std::size_t rows) {
  switch (rows) {
    case 1:
      return multiply_tile<T, 1, kVectors, kReading>;
    case 2:
      return multiply_tile<T, 2, kVectors, kReading>;
    case 4:
      return multiply_tile<T, 4, kVectors, kReading>;
#if PION_LANES == 8
    case 6:
      return multiply_tile<T, 6, kVectors, kReading>;
    case 8:
      return multiply_tile < T, kVectors == 1 ? 8 : 6, kVectors, kReading > ;
#endif
#if PION_LANES == 16
    case 8:
      return multiply_tile<T, 8, kVectors, kReading>;
    case 12:
      return multiply_tile<T, 12, kVectors, kReading>;
    case 16:
      return multiply_tile < T, kVectors == 1 ? 16 : 12, kVectors, kReading > ;
#endif
    default:
      return nullptr;
  }
}

}  // namespace

}  // namespace pion::PION_TARGET
