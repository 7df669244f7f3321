// SPDX-License-Identifier: Apache-2.0
// What the element-wise kernels need beyond lanes.h: square roots, bfloat16, masks, sums
// in double. Only for *_kernel.cc files.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pion/kernels/elementwise_call.h"
#include "pion/kernels/lanes.h"

namespace pion::PION_TARGET {

typedef std::uint32_t U32 __attribute__((vector_size(4 * PION_LANES)));
typedef std::uint16_t U16 __attribute__((vector_size(2 * PION_LANES)));
typedef float HalfF32 __attribute__((vector_size(2 * PION_LANES)));

inline F32 square_root(F32 x) {
#if defined(__clang__)
  return __builtin_elementwise_sqrt(x);
#elif defined(__AVX512F__)
  constexpr int kCurrentRounding = 4;
  return __builtin_ia32_sqrtps512_mask(x, x, static_cast<unsigned short>(-1),
                                       kCurrentRounding);
#elif defined(__AVX__)
  return __builtin_ia32_sqrtps256(x);
#elif defined(__SSE2__)
  return __builtin_ia32_sqrtps(x);
#else
  for (int lane = 0; lane < PION_LANES; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
  return x;
#endif
}

// Asks for what lies 2 KiB ahead. The hardware's own stream ends at every page: 42 ms
// became 22 for AdamW on 16 Mi entries.
inline void prefetch(const void* x) {
  __builtin_prefetch(
      reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(x) + 2048));
}

inline F32 broadcast(float x) { return x - F32{}; }

struct WideLanes {
  F64 low, high;
};

// The same numbers as doubles. What __builtin_convertvector makes of this in g++ 12 takes
// two to three times as many instructions.
inline WideLanes widen(F32 x) {
  HalfF32 halves[2];
  __builtin_memcpy(halves, &x, sizeof x);
#if defined(__clang__)
  return {__builtin_convertvector(halves[0], F64),
          __builtin_convertvector(halves[1], F64)};
#elif defined(__AVX512F__)
  constexpr unsigned char kAll = 255;
  constexpr int kCurrentRounding = 4;
  return {__builtin_ia32_cvtps2pd512_mask(halves[0], F64{}, kAll, kCurrentRounding),
          __builtin_ia32_cvtps2pd512_mask(halves[1], F64{}, kAll, kCurrentRounding)};
#elif defined(__AVX__)
  return {__builtin_ia32_cvtps2pd256(halves[0]), __builtin_ia32_cvtps2pd256(halves[1])};
#elif defined(__SSE2__)
  return {__builtin_ia32_cvtps2pd(x),
          __builtin_ia32_cvtps2pd(__builtin_shufflevector(x, x, 2, 3, 2, 3))};
#else
  return {__builtin_convertvector(halves[0], F64),
          __builtin_convertvector(halves[1], F64)};
#endif
}

// A sum in double, by lanes.
struct Sum {
  F64 low = {}, high = {};
  void add(F32 x) {
    const WideLanes wide = widen(x);
    low += wide.low, high += wide.high;
  }
  double total() const {
    const F64 both = low + high;
    double sum = 0;
    for (std::size_t lane = 0; lane < PION_LANES / 2; ++lane) sum += both[lane];
    return sum;
  }
};

// A sum of squares: in double neither those of 1e30 nor of 1e-30 leave the range.
struct Squares : Sum {
  void add(F32 x) {
    const WideLanes wide = widen(x);
    low += wide.low * wide.low, high += wide.high * wide.high;
  }
};

inline F32 entries(const float* g) { return load(g); }
inline F32 entries(const std::uint16_t* g) {
  U16 bits;
  __builtin_memcpy(&bits, g, sizeof bits);
  return (F32)(__builtin_convertvector(bits, U32) << 16);
}

// The entries with what `negated` and `zero_nonfinite` ask for.
struct GradientLanes {
  U32 sign;
  bool zero_nonfinite;
  explicit GradientLanes(const GradientEntries& gradient)
      : sign(U32{} + (gradient.negated ? 0x80000000u : 0u)),
        zero_nonfinite(gradient.zero_nonfinite) {}
  template <class G>
  F32 operator()(const G* g) const {
    const U32 bits = (U32)entries(g) ^ sign;
    if (!zero_nonfinite) return (F32)bits;
    const U32 infinity = U32{} + 0x7f800000u;
    return (F32)(bits & (U32)((bits & infinity) != infinity));
  }
};

// The last entries of an array, fewer than a vector, in memory of a whole one: so that
// they are computed by the same code as the others.
template <class T>
struct Rest {
  T entries[PION_LANES] = {};
  T* where;
  std::size_t count;
  Rest(T* from, std::size_t n) : where(from), count(n) {
    for (std::size_t i = 0; i < n; ++i) entries[i] = from[i];
  }
  void write_back() const {
    for (std::size_t i = 0; i < count; ++i) where[i] = entries[i];
  }
};
// What is only read.
template <class T>
struct Rest<const T> {
  T entries[PION_LANES] = {};
  Rest(const T* from, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) entries[i] = from[i];
  }
};

}  // namespace pion::PION_TARGET
