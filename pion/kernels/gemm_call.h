// SPDX-License-Identifier: Apache-2.0
// What gemm.cc passes to the kernel of a target. Plain data and declarations only: this
// header is read by sources built for different instruction sets.
#pragma once

#include <cstddef>

namespace pion {

// Blocks that a kernel packs at a time, in elements. 256 deep: the panel of one register
// tile (32 floats x 256) is 32 KiB and stays in L1; 512 x 256 floats are 512 KiB and stay
// in L2.
inline constexpr std::size_t kGemmDepth = 256;
inline constexpr std::size_t kGemmRows = 192;  // a multiple of every target's tile rows
inline constexpr std::size_t kGemmCols = 512;  // and this of every target's tile columns
inline constexpr std::size_t kGemmSumCols = 256;  // sums over several depths are kept in
                                                  // kGemmRows x kGemmSumCols
// Up to this many rows and columns A is read where it is, if it lies depth by depth.
inline constexpr std::size_t kGemmInPlace = 256;
inline constexpr std::size_t kGemmAlignment = 64;  // bytes: a cache line
inline constexpr std::size_t kGemmScratch =
    (kGemmRows + kGemmCols) * kGemmDepth + kGemmRows * kGemmSumCols + kGemmAlignment;

// out = alpha op(A) op(B) + beta C, all row-major.
template <class T>
struct GemmCall {
  std::size_t m, n, k;
  T alpha;
  const T* a;  // (m x k), or (k x m) if a_transposed
  std::size_t a_stride;
  bool a_transposed;
  const T* b;  // (k x n), or (n x k) if b_transposed
  std::size_t b_stride;
  bool b_transposed;
  T beta;
  const T* c;  // (m x n); not read if beta is 0; may be `out`
  std::size_t c_stride;
  T* out;  // (m x n)
  std::size_t out_stride;
  bool symmetric;   // the product is symmetric: the upper half is computed and mirrored
  T* mirrored;      // (n x m) with out's stride: gets out^T; or nullptr
  double* squares;  // gets the sum of squares of op(A) op(B); or nullptr
  T* scratch;       // kGemmScratch elements
};

namespace portable {
void gemm(const GemmCall<float>& call);
void gemm(const GemmCall<double>& call);
double multiply_add_peak(std::size_t repetitions, float factor, float* last);
}  // namespace portable
namespace avx2 {
void gemm(const GemmCall<float>& call);
void gemm(const GemmCall<double>& call);
double multiply_add_peak(std::size_t repetitions, float factor, float* last);
}  // namespace avx2
namespace avx512 {
void gemm(const GemmCall<float>& call);
void gemm(const GemmCall<double>& call);
double multiply_add_peak(std::size_t repetitions, float factor, float* last);
}  // namespace avx512

}  // namespace pion
