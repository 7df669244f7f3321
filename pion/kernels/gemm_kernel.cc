// SPDX-License-Identifier: Apache-2.0
// Built once per CPU target with that target's flags. Hence no checks, no allocation
// and no standard header but <cstddef>: an inline function compiled here for AVX-512
// could be the copy the linker keeps for the whole program.
//
// out = alpha A op(B) + beta C, by panels: blocks of A and B are copied so that a
// register tile of kTileRows x kTileCols reads both with unit stride.

#include <cstddef>

#include "pion/kernels/kernel_call.h"
#include "pion/kernels/lanes.h"

namespace pion::PION_TARGET {

namespace {

// 2 vectors wide. The tile, 2 vectors of B and one of A fill the registers: 16 of them
// with SSE2 and AVX2, 32 with AVX-512.
constexpr std::size_t kTileRows = PION_LANES == 16 ? 12 : PION_LANES == 8 ? 6 : 4;
template <class T>
constexpr std::size_t kTileCols = 2 * Lanes<T>::kCount;

std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }

// Panels of `width` rows of x (rows x depth), each stored depth-major; the last panel is
// filled up with zeros.
template <class T>
void pack_rows(const T* x, std::size_t stride, std::size_t rows, std::size_t depth,
               std::size_t width, T* to) {
  for (std::size_t i = 0; i < rows; i += width, to += width * depth) {
    const std::size_t filled = smaller(width, rows - i);
    for (std::size_t r = 0; r < filled; ++r) {
      const T* row = x + (i + r) * stride;
      for (std::size_t p = 0; p < depth; ++p) to[p * width + r] = row[p];
    }
    for (std::size_t r = filled; r < width; ++r) {
      for (std::size_t p = 0; p < depth; ++p) to[p * width + r] = T{0};
    }
  }
}

// The same for panels of `width` columns of x (depth x cols).
template <class T>
void pack_columns(const T* x, std::size_t stride, std::size_t cols, std::size_t depth,
                  std::size_t width, T* to) {
  for (std::size_t j = 0; j < cols; j += width, to += width * depth) {
    const std::size_t filled = smaller(width, cols - j);
    for (std::size_t p = 0; p < depth; ++p) {
      const T* row = x + p * stride + j;
      T* line = to + p * width;
      for (std::size_t c = 0; c < filled; ++c) line[c] = row[c];
      for (std::size_t c = filled; c < width; ++c) line[c] = T{0};
    }
  }
}

// tile (kTileRows x kTileCols, contiguous) = alpha * (panel of A) (panel of B).
template <class T>
void multiply_panels(std::size_t depth, const T* a, const T* b, T alpha, T* tile) {
  using Vector = typename Lanes<T>::Vector;
  constexpr std::size_t kCount = Lanes<T>::kCount;
  Vector sum[kTileRows][2] = {};
  for (std::size_t p = 0; p < depth; ++p, a += kTileRows, b += 2 * kCount) {
    const Vector b0 = load(b), b1 = load(b + kCount);
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kTileRows; ++r) {
      sum[r][0] += a[r] * b0;
      sum[r][1] += a[r] * b1;
    }
  }
#pragma GCC unroll 16
  for (std::size_t r = 0; r < kTileRows; ++r) {
    store(tile + r * 2 * kCount, alpha * sum[r][0]);
    store(tile + r * 2 * kCount + kCount, alpha * sum[r][1]);
  }
}

// out = tile + beta c on the first block of the depth, out += tile on the later ones.
template <class T>
void add_tile(const GemmCall<T>& call, bool first, const T* tile, std::size_t i,
              std::size_t j) {
  const std::size_t rows = smaller(kTileRows, call.m - i);
  const std::size_t cols = smaller(kTileCols<T>, call.n - j);
  for (std::size_t r = 0; r < rows; ++r) {
    const T* from = tile + r * kTileCols<T>;
    T* out = call.out + (i + r) * call.out_stride + j;
    if (!first) {
      for (std::size_t c = 0; c < cols; ++c) out[c] += from[c];
    } else if (call.beta == T{0}) {
      for (std::size_t c = 0; c < cols; ++c) out[c] = from[c];
    } else {
      const T* old = call.c + (i + r) * call.c_stride + j;
      for (std::size_t c = 0; c < cols; ++c) out[c] = from[c] + call.beta * old[c];
    }
  }
}

// The products of one packed block of B, columns [j0, j0 + cols), with all rows of A.
template <class T>
void multiply_block(const GemmCall<T>& call, std::size_t p0, std::size_t depth,
                    std::size_t j0, std::size_t cols, const T* packed_b) {
  T* packed_a = call.scratch + kGemmCols * kGemmDepth;
  T tile[kTileRows * kTileCols<T>];
  for (std::size_t i0 = 0; i0 < call.m; i0 += kGemmRows) {
    if (call.symmetric && i0 >= j0 + cols) break;  // below the diagonal from here on
    const std::size_t rows = smaller(kGemmRows, call.m - i0);
    pack_rows(call.a + i0 * call.a_stride + p0, call.a_stride, rows, depth, kTileRows,
              packed_a);
    for (std::size_t j = 0; j < cols; j += kTileCols<T>) {
      for (std::size_t i = 0; i < rows; i += kTileRows) {
        if (call.symmetric && i0 + i >= j0 + j + kTileCols<T>) break;
        multiply_panels(depth, packed_a + i * depth, packed_b + j * depth, call.alpha,
                        tile);
        add_tile(call, p0 == 0, tile, i0 + i, j0 + j);
      }
    }
  }
}

template <class T>
void mirror(const GemmCall<T>& call) {
  constexpr std::size_t kBlock = 32;  // 32 x 32 doubles twice: 16 KiB, in L1
  for (std::size_t i0 = 0; i0 < call.m; i0 += kBlock) {
    for (std::size_t j0 = 0; j0 <= i0; j0 += kBlock) {
      for (std::size_t i = i0; i < smaller(i0 + kBlock, call.m); ++i) {
        T* row = call.out + i * call.out_stride;
        for (std::size_t j = j0; j < smaller(j0 + kBlock, i); ++j) {
          row[j] = call.out[j * call.out_stride + i];
        }
      }
    }
  }
}

// An empty sum: out = beta C.
template <class T>
void scale_only(const GemmCall<T>& call) {
  for (std::size_t i = 0; i < call.m; ++i) {
    for (std::size_t j = 0; j < call.n; ++j) {
      call.out[i * call.out_stride + j] =
          call.beta == T{0} ? T{0} : call.beta * call.c[i * call.c_stride + j];
    }
  }
}

template <class T>
void gemm_of(const GemmCall<T>& call) {
  if (call.k == 0) return scale_only(call);
  T* packed_b = call.scratch;
  for (std::size_t j0 = 0; j0 < call.n; j0 += kGemmCols) {
    const std::size_t cols = smaller(kGemmCols, call.n - j0);
    for (std::size_t p0 = 0; p0 < call.k; p0 += kGemmDepth) {
      const std::size_t depth = smaller(kGemmDepth, call.k - p0);
      if (call.b_transposed) {
        pack_rows(call.b + j0 * call.b_stride + p0, call.b_stride, cols, depth,
                  kTileCols<T>, packed_b);
      } else {
        pack_columns(call.b + p0 * call.b_stride + j0, call.b_stride, cols, depth,
                     kTileCols<T>, packed_b);
      }
      multiply_block(call, p0, depth, j0, cols, packed_b);
    }
  }
  if (call.symmetric) mirror(call);
}

}  // namespace

void gemm(const GemmCall<float>& call) { gemm_of(call); }
void gemm(const GemmCall<double>& call) { gemm_of(call); }

}  // namespace pion::PION_TARGET
