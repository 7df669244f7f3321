// SPDX-License-Identifier: Apache-2.0
// Vectors of 16 floats for the *_kernel.cc files beside this one, which are built once
// per CPU target: everything lies in the target's namespace, so that no two share a
// symbol.
#pragma once

#include <cstddef>

namespace pion::lab::PION_TARGET {

using std::size_t;
constexpr size_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(64)));
typedef int Ints __attribute__((vector_size(64)));

inline Lanes load(const float* x) {
  Lanes v;
  __builtin_memcpy(&v, x, sizeof v);
  return v;
}
inline void store(float* x, Lanes v) { __builtin_memcpy(x, &v, sizeof v); }
inline Lanes all(float x) { return Lanes{} + x; }

// The first n < 16, others `rest`.
inline Lanes load_part(const float* x, size_t n, float rest) {
  float padded[kLanes];
  for (size_t i = 0; i < kLanes; ++i) padded[i] = i < n ? x[i] : rest;
  return load(padded);
}
inline void store_part(float* x, Lanes v, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] = v[i];
}

inline float sum(Lanes v) {
  float half[8], quarter[4];
  for (int i = 0; i < 8; ++i) half[i] = v[i] + v[i + 8];
  for (int i = 0; i < 4; ++i) quarter[i] = half[i] + half[i + 4];
  return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

inline float largest(Lanes v) {
  float top = v[0];
  for (size_t i = 1; i < kLanes; ++i) top = v[i] > top ? v[i] : top;
  return top;
}

// To bf16 and back, to nearest even; NaN stays NaN.
inline Lanes to_bf16(Lanes x) {
  Ints bits = (Ints)x;
  const Ints rounded = (bits + 0x7fff + ((bits >> 16) & 1)) & (int)0xffff0000u;
  return x == x ? (Lanes)rounded : x;
}
inline Lanes rounded(Lanes x, bool bf16) { return bf16 ? to_bf16(x) : x; }
inline float rounded(float x, bool bf16) { return bf16 ? to_bf16(all(x))[0] : x; }

// exp(x) for x <= 88, within 2 ulp; 0 below -87. x = n ln 2 + r with |r| <= ln 2 / 2, and
// Cephes' polynomial of expf for exp(r) (Moshier, netlib.org/cephes).
inline Lanes exponential(Lanes x) {
  const Lanes low = all(-87.0f);
  const Ints tiny = x < low;
  x = tiny ? low : x;
  // 1.5 * 2^23: its sum's low bits are an integer
  const Lanes shifter = all(12582912.0f);
  const Lanes scaled = x * 1.44269504088896341f + shifter;
  const Lanes n = scaled - shifter;
  Lanes r = x - n * 0.693359375f;  // ln 2 in two parts, the first exact in 9 bits
  r = r + n * 2.12194440e-4f;
  Lanes p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Ints power = ((Ints)scaled - (Ints)shifter + 127) << 23;
  return tiny ? Lanes{} : p * (Lanes)power;
}

}  // namespace pion::lab::PION_TARGET
