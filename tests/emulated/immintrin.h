// SPDX-License-Identifier: Apache-2.0
// AVX-512 BF16 in plain C++ by SIMDe, in the place of the compiler's header: so tests run
// the kernels of bf16 tiles on every machine. The second half holds the intrinsics of
// these kernels that SIMDe 0.7.4 lacks.
#pragma once

#define SIMDE_NO_NATIVE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

using __mmask16 = simde__mmask16;

namespace emulated {

template <class T, std::size_t kLanes, class Vector>
void unpack(Vector v, T (&lanes)[kLanes]) {
  static_assert(sizeof lanes == sizeof v);
  std::memcpy(lanes, &v, sizeof v);
}
template <class Vector, class T, std::size_t kLanes>
Vector packed(const T (&lanes)[kLanes]) {
  Vector v;
  static_assert(sizeof lanes == sizeof v);
  std::memcpy(&v, lanes, sizeof v);
  return v;
}

// Entries of `from` whose bit is set; the others are not read.
template <class Vector, std::size_t kLanes, class T>
Vector masked(__mmask16 mask, const T* from) {
  T lanes[kLanes] = {};
  for (std::size_t i = 0; i < kLanes; ++i) {
    if (mask >> i & 1) lanes[i] = from[i];
  }
  return packed<Vector>(lanes);
}

// To nearest even; NaN stays NaN, and denormals become zero, as VCVTNE2PS2BF16 has it.
inline std::uint16_t bf16_bits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (std::isnan(x)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  if (std::fpclassify(x) == FP_SUBNORMAL) return bits >> 31 << 15;
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace emulated

inline __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const void* from) {
  return emulated::masked<__m512, 16>(mask, static_cast<const float*>(from));
}

inline __m256i _mm256_maskz_loadu_epi16(__mmask16 mask, const void* from) {
  return emulated::masked<__m256i, 16>(mask, static_cast<const std::uint16_t*>(from));
}

inline void _mm512_mask_storeu_ps(void* to, __mmask16 mask, __m512 v) {
  float lanes[16];
  emulated::unpack(v, lanes);
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) static_cast<float*>(to)[i] = lanes[i];
  }
}

inline __m512i _mm512_cvtepu16_epi32(__m256i v) {
  std::uint16_t narrow[16];
  std::uint32_t wide[16];
  emulated::unpack(v, narrow);
  std::copy(narrow, narrow + 16, wide);
  return emulated::packed<__m512i>(wide);
}

// The floats of `low` come first.
inline __m512bh _mm512_cvtne2ps_pbh(__m512 high, __m512 low) {
  float wide[2][16];
  std::uint16_t narrow[32];
  emulated::unpack(low, wide[0]);
  emulated::unpack(high, wide[1]);
  for (int i = 0; i < 32; ++i) narrow[i] = emulated::bf16_bits(wide[i / 16][i % 16]);
  return emulated::packed<__m512bh>(narrow);
}

// SIMDe's own rounds twice.
#undef _mm512_fmadd_ps
inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  float x[16], y[16], sum[16];
  emulated::unpack(a, x);
  emulated::unpack(b, y);
  emulated::unpack(c, sum);
  for (int i = 0; i < 16; ++i) sum[i] = std::fma(x[i], y[i], sum[i]);
  return emulated::packed<__m512>(sum);
}

// By halves, as the compilers do it.
inline float _mm512_reduce_add_ps(__m512 v) {
  float lanes[16];
  emulated::unpack(v, lanes);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

inline std::uint32_t _mm512_reduce_max_epu32(__m512i v) {
  std::uint32_t lanes[16];
  emulated::unpack(v, lanes);
  return *std::max_element(lanes, lanes + 16);
}
