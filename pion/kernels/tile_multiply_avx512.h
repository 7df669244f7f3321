// SPDX-License-Identifier: Apache-2.0
// The product of bf16 tiles on AVX-512 BF16. Only for *_kernel.cc files of this target.
#pragma once

#include <immintrin.h>

#include "pion/kernels/tile_call.h"

namespace pion::PION_TARGET {

struct TileRegisters {
  ~TileRegisters() {}  // so that a variable of it is not unused
};

// Eight rows of c, `kHalves` vectors of 16 columns wide.
template <int kHalves>
struct EightRows {
  __m512 sum[8][kHalves];

  void start(const float* c, bool accumulate) {
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        sum[r][h] = accumulate ? _mm512_loadu_ps(c + r * kBlockEdge + 16 * h)
                               : _mm512_setzero_ps();
      }
    }
  }

  // Adds the product of rows of one left tile and of right tiles `step` apart.
  void add(const Bf16Bits* left, const Bf16Bits* right, std::size_t step) {
    const auto* pairs = reinterpret_cast<const float*>(left);
#pragma GCC unroll 2
    for (int pair = 0; pair < 16; ++pair) {
      __m512bh b[kHalves];
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        b[h] =
            reinterpret_cast<__m512bh>(_mm512_loadu_si512(right + h * step + pair * 32));
      }
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r) {
        const auto a = reinterpret_cast<__m512bh>(_mm512_set1_ps(pairs[r * 16 + pair]));
#pragma GCC unroll 2
        for (int h = 0; h < kHalves; ++h)
          sum[r][h] = _mm512_dpbf16_ps(sum[r][h], a, b[h]);
      }
    }
  }

  void store(float* c) const {
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        _mm512_storeu_ps(c + r * kBlockEdge + 16 * h, sum[r][h]);
      }
    }
  }
};

template <Terms kTerms, int kHalves>
inline void multiply_rows(const TileProduct& p, std::size_t left, std::size_t right,
                          std::size_t k0, std::size_t k1, bool accumulate, float* c) {
  EightRows<kHalves> rows;
  rows.start(c, accumulate);
  for (std::size_t k = k0; k < k1; ++k) {
    const std::size_t l = left + k * kTileSize, r = right + k * kTileSize;
    rows.add(p.left + l, p.right + r, p.right_step);
    if constexpr (kTerms == Terms::kLeftRest || kTerms == Terms::kBothRests) {
      rows.add(p.left_rest + l, p.right + r, p.right_step);
    }
    if constexpr (kTerms == Terms::kRightRest || kTerms == Terms::kBothRests) {
      rows.add(p.left + l, p.right_rest + r, p.right_step);
    }
  }
  rows.store(c);
}

// c (32 x 32) (+)= the terms over k tiles [k0, k1), for block row i and block column j.
template <Terms kTerms, bool kOnDiagonal, class Between>
inline void multiply_terms(const TileProduct& p, std::size_t i, std::size_t j,
                           std::size_t k0, std::size_t k1, bool accumulate, float* c,
                           Between) {
  const std::size_t right = 2 * j * p.right_step;
  for (std::size_t row = 0; row < 32; row += 8) {
    const std::size_t left = (2 * i + row / 16) * p.left_step + row % 16 * 32;
    float* to = c + row * kBlockEdge;
    if (kOnDiagonal && row >= 16) {  // the corner below the diagonal is left out
      multiply_rows<kTerms, 1>(p, left, right + p.right_step, k0, k1, accumulate,
                               to + 16);
    } else {
      multiply_rows<kTerms, 2>(p, left, right, k0, k1, accumulate, to);
    }
  }
}

}  // namespace pion::PION_TARGET
