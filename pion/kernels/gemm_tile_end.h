// SPDX-License-Identifier: Apache-2.0
// What becomes of the sums of a register tile, for gemm_tile.h.
#pragma once

#include <cstddef>

#include "pion/kernels/lanes.h"

namespace pion::PION_TARGET {

namespace {

// What is done with the sums of a tile: out = alpha (sum + before) + beta c.
template <class T>
struct TileEnd {
  T alpha, beta;
  const T* before;  // sums of earlier depths, or nullptr
  std::size_t before_stride;
  const T* c;  // nullptr: no such term
  std::size_t c_stride;
  T* out;
  std::size_t out_stride;
  typename Lanes<T>::Vector* squares;  // += (sum + before)^2, lane by lane; or nullptr
  bool far;                            // `out` and c are too large to be in L1 already

  TileEnd at(std::size_t i, std::size_t j) const {
    TileEnd moved = *this;
    if (before != nullptr) moved.before += i * before_stride + j;
    if (c != nullptr) moved.c += i * c_stride + j;
    moved.out += i * out_stride + j;
    return moved;
  }
};

// The first and last entries of each row into the cache while the sums are computed.
template <class T, std::size_t kRows, std::size_t kVectors>
[[gnu::always_inline]] inline void prefetch_end(const TileEnd<T>& end) {
  constexpr std::size_t kLast = kVectors * Lanes<T>::kCount - 1;
  if (!end.far) return;
#pragma GCC unroll 16
  for (std::size_t r = 0; r < kRows; ++r) {
    __builtin_prefetch(end.out + r * end.out_stride, 1);
    __builtin_prefetch(end.out + r * end.out_stride + kLast, 1);
  }
  if (end.c == nullptr || end.c == end.out) return;
#pragma GCC unroll 16
  for (std::size_t r = 0; r < kRows; ++r) {
    __builtin_prefetch(end.c + r * end.c_stride);
    __builtin_prefetch(end.c + r * end.c_stride + kLast);
  }
}

// `v` as it is now: rounded, where a compiler that may contract a * b + c would not.
template <class Vector>
[[gnu::always_inline]] inline Vector rounded(Vector v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
  return v;
}

// x[0, n) and zeros behind.
template <class T>
inline typename Lanes<T>::Vector load_first(const T* x, std::size_t n) {
  constexpr std::size_t kCount = Lanes<T>::kCount;
  if (n >= kCount) return load(x);
  T line[kCount] = {};
  for (std::size_t l = 0; l < n; ++l) line[l] = x[l];
  return load(line);
}
template <class T>
inline void store_first(T* x, std::size_t n, typename Lanes<T>::Vector v) {
  constexpr std::size_t kCount = Lanes<T>::kCount;
  if (n >= kCount) return store(x, v);
  T line[kCount];
  store(line, v);
  for (std::size_t l = 0; l < n; ++l) x[l] = line[l];
}

// The end of a tile whose rows have `cols` entries; kWhole: all that a tile can have.
template <bool kWhole, class T, std::size_t kRows, std::size_t kVectors>
[[gnu::always_inline]] inline void end_tile(
    typename Lanes<T>::Vector (&sum)[kRows][kVectors], std::size_t cols,
    const TileEnd<T>& end) {
  using Vector = typename Lanes<T>::Vector;
  constexpr std::size_t kCount = Lanes<T>::kCount;
  const auto filled = [cols](std::size_t v) {
    if (kWhole) return kCount;
    return cols > v * kCount ? cols - v * kCount : std::size_t{0};
  };
  if (end.before != nullptr) {
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (std::size_t v = 0; v < kVectors; ++v) {
        sum[r][v] +=
            load_first(end.before + r * end.before_stride + v * kCount, filled(v));
      }
    }
  }
  if (end.squares != nullptr) {
    Vector squares = *end.squares;
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (std::size_t v = 0; v < kVectors; ++v) squares += sum[r][v] * sum[r][v];
    }
    *end.squares = squares;
  }
  if (end.c == nullptr) {
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (std::size_t v = 0; v < kVectors; ++v) {
        store_first(end.out + r * end.out_stride + v * kCount, filled(v),
                    end.alpha * sum[r][v]);
      }
    }
    return;
  }
#pragma GCC unroll 16
  for (std::size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (std::size_t v = 0; v < kVectors; ++v) {
      const Vector c = load_first(end.c + r * end.c_stride + v * kCount, filled(v));
      store_first(end.out + r * end.out_stride + v * kCount, filled(v),
                  rounded(end.alpha * sum[r][v]) + end.beta * c);
    }
  }
}

}  // namespace

}  // namespace pion::PION_TARGET
