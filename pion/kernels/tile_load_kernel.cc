// SPDX-License-Identifier: Apache-2.0
// The first pass of a step over memory: momentum, direction, and X in bf16 tiles.
// Built for the targets with bf16, with -ffp-contract=off: the momentum is then the same
// on every target.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "pion/kernels/tile_call.h"
#include "pion/kernels/tile_convert.h"

namespace pion::PION_TARGET {

namespace {

// One vector of 16 entries at (row, col); `mask` has the bits of those that exist.
struct Averaging {
  const TileLoad& call;
  __m512 mu, share, scale;
  __m512i largest;  // bits of |D|: their order is that of the values, NaN on top

  __m512 gradient(std::size_t at, __mmask16 mask) const {
    if (!call.gradient_is_bf16) {
      return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(call.gradient) + at);
    }
    const auto* bits = static_cast<const std::uint16_t*>(call.gradient) + at;
    const __m256i narrow = _mm256_maskz_loadu_epi16(mask, bits);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
  }

  __m512 average(__m512 m, __m512 g) const {
    return _mm512_add_ps(_mm512_mul_ps(mu, m), _mm512_mul_ps(share, g));
  }

  // scale D
  __m512 operator()(std::size_t row, std::size_t col, __mmask16 mask) {
    const __m512 g = gradient(row * call.gradient_stride + col, mask);
    __m512 d = g;
    if (call.momentum != nullptr) {
      float* memory = call.momentum + row * call.momentum_stride + col;
      __m512 m = _mm512_maskz_loadu_ps(mask, memory);
      if (call.update_momentum) {
        m = average(m, g);
        _mm512_mask_storeu_ps(memory, mask, m);
      }
      d = call.nesterov ? average(m, g) : m;
    }
    const __m512i bits =
        _mm512_and_si512(_mm512_castps_si512(d), _mm512_set1_epi32(0x7fffffff));
    largest = _mm512_max_epu32(largest, bits);
    return _mm512_mul_ps(d, scale);
  }
};

// What comes so many pairs of rows later: the hardware follows a row of 2 KiB only when
// it is almost over.
constexpr std::size_t kPairsAhead = 2;

void prefetch_lines(const void* at) {
  const auto* bytes = static_cast<const char*>(at);
  _mm_prefetch(bytes, _MM_HINT_T0);
  _mm_prefetch(bytes + 64, _MM_HINT_T0);
}

void prefetch_pair(const TileLoad& call, std::size_t pair, std::size_t col) {
  for (std::size_t row = 2 * pair; row < 2 * pair + 2; ++row) {
    const std::size_t at = row * call.gradient_stride + col;
    if (call.gradient_is_bf16) {
      _mm_prefetch(static_cast<const char*>(call.gradient) + 2 * at, _MM_HINT_T0);
    } else {
      prefetch_lines(static_cast<const float*>(call.gradient) + at);
    }
    if (call.momentum != nullptr)
      prefetch_lines(call.momentum + row * call.momentum_stride + col);
  }
}

// Columns [32 k, 32 k + 32) of rows 2p and 2p + 1 to their places.
void store_pair(const TileLoad& call, std::size_t p, std::size_t k,
                const __m512 (&d)[4]) {
  const __m512i row0 = round_pair(d[0], d[1]), row1 = round_pair(d[2], d[3]);
  const std::size_t row = 2 * p;
  if (call.left != nullptr) {
    Bf16Bits* tile =
        call.left + row / 16 * call.left_step + k * kTileSize + row % 16 * 32;
    _mm512_storeu_si512(tile, row0);
    _mm512_storeu_si512(tile + 32, row1);
  }
  if (call.right != nullptr) {
    const Interleaved lines = interleave(row0, row1);
    Bf16Bits* tile =
        call.right + 2 * k * call.right_step + p / 16 * kTileSize + p % 16 * 32;
    _mm512_storeu_si512(tile, lines.first);
    _mm512_storeu_si512(tile + call.right_step, lines.second);
  }
  if (call.blocks != nullptr) {
    float* block =
        call.blocks + row / 32 * call.blocks_step + k * kBlockSize + row % 32 * 32;
    for (int i = 0; i < 4; ++i) _mm512_storeu_ps(block + 16 * i, d[i]);
  }
}

}  // namespace

std::uint32_t load_tiles(const TileLoad& call) {
  Averaging direction{call, _mm512_set1_ps(call.mu), _mm512_set1_ps(call.share),
                      _mm512_set1_ps(call.scale), _mm512_setzero_si512()};
  const std::size_t pairs = (call.rows + 31) / 32 * 16, tiles = (call.cols + 31) / 32;
  const __m512 zero = _mm512_setzero_ps();
  for (std::size_t p = 0; p < pairs; ++p) {
    for (std::size_t k = 0; k < tiles; ++k) {
      const std::size_t col = 32 * k;
      const __mmask16 low = first_lanes(col, call.cols),
                      high = first_lanes(col + 16, call.cols);
      prefetch_pair(call, p + kPairsAhead, col);
      __m512 d[4] = {zero, zero, zero, zero};
      for (std::size_t r = 0; r < 2 && 2 * p + r < call.rows; ++r) {
        d[2 * r] = direction(2 * p + r, col, low);
        d[2 * r + 1] = direction(2 * p + r, col + 16, high);
      }
      store_pair(call, p, k, d);
    }
  }
  return _mm512_reduce_max_epu32(direction.largest);
}

void transpose_tiles(const Bf16Bits* from, std::size_t tiles, Bf16Bits* to) {
  for (std::size_t t = 0; t < tiles; ++t) {
    transpose_tile(from + t * kTileSize, to + t * kTileSize);
  }
}

}  // namespace pion::PION_TARGET
