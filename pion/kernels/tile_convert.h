// SPDX-License-Identifier: Apache-2.0
// Between blocks of floats and tiles of bf16. Only for *_kernel.cc files of the targets
// with bf16.
#pragma once

#include <immintrin.h>

#include "pion/kernels/tile_call.h"

namespace pion::PION_TARGET {

// The lanes of a vector at `col` that exist.
inline __mmask16 first_lanes(std::size_t col, std::size_t cols) {
  const std::size_t left = cols > col ? cols - col : 0;
  return left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
}

// 32 floats rounded to nearest even, in order.
inline __m512i round_pair(__m512 first, __m512 second) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
}

// The first and the last 16 of them as floats.
inline __m512 first_of_pair(__m512i rounded) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(rounded)), 16));
}
inline __m512 second_of_pair(__m512i rounded) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(
      _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(rounded, 1)), 16));
}

// What the rounding left over of 32 floats, rounded itself.
inline __m512i rest_of_pair(__m512 first, __m512 second, __m512i rounded) {
  return round_pair(_mm512_sub_ps(first, first_of_pair(rounded)),
                    _mm512_sub_ps(second, second_of_pair(rounded)));
}

// Two rows of 32 become two lines of right tiles: columns 0 to 15, and 16 to 31.
struct Interleaved {
  __m512i first, second;
};
inline Interleaved interleave(__m512i row0, __m512i row1) {
  // entry c of row0 (index c), then entry c of row1 (index 32 + c)
  const __m512i step = _mm512_set1_epi32(0x00010001);
  const __m512i even = _mm512_set_epi32(0x002f000f, 0x002e000e, 0x002d000d, 0x002c000c,
                                        0x002b000b, 0x002a000a, 0x00290009, 0x00280008,
                                        0x00270007, 0x00260006, 0x00250005, 0x00240004,
                                        0x00230003, 0x00220002, 0x00210001, 0x00200000);
  const __m512i odd = _mm512_add_epi16(even, _mm512_slli_epi16(step, 4));
  return {_mm512_permutex2var_epi16(row0, even, row1),
          _mm512_permutex2var_epi16(row0, odd, row1)};
}

// A 16 x 16 matrix of 32-bit words, lines of 64 bytes, transposed: a left tile becomes
// the right tile of the transposed matrix, and the other way round.
inline void transpose_tile(const void* from, void* to, std::size_t to_line = 64,
                           std::size_t from_line = 64) {
  const auto* source = static_cast<const unsigned char*>(from);
  auto* target = static_cast<unsigned char*>(to);
  __m512i r[16], t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(source + i * from_line);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const int a = (i / 4) * 8 + i % 4;
    t[a] = _mm512_shuffle_i32x4(r[a], r[a + 4], 0x88);
    t[a + 4] = _mm512_shuffle_i32x4(r[a], r[a + 4], 0xdd);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    _mm512_storeu_si512(target + i * to_line, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
    _mm512_storeu_si512(target + (i + 8) * to_line,
                        _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
  }
}

}  // namespace pion::PION_TARGET
