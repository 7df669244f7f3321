// SPDX-License-Identifier: Apache-2.0
// Built once per CPU target with that target's flags; see gemm_kernel.cc for what
// follows.

#include <cstddef>

#include "pion/kernels/kernel_call.h"
#include "pion/kernels/lanes.h"

namespace pion::PION_TARGET {

namespace {

// Blocks are summed in T and their totals in double: over 4096 x 4096 normals in float
// the error is 3e-9, where one running float is off by 3e-2.
template <class T>
double sum_of(const T* x, std::size_t n) {
  using Vector = typename Lanes<T>::Vector;
  constexpr std::size_t kCount = Lanes<T>::kCount;
  constexpr std::size_t kBlock = 4096;  // 16 or 32 KiB: in L1
  double total = 0.0;
  for (; n >= kBlock; x += kBlock, n -= kBlock) {
    Vector s0 = {}, s1 = {}, s2 = {},
           s3 = {};  // four chains hide the add latency: 2-4x one
    for (std::size_t i = 0; i < kBlock; i += 4 * kCount) {
      const Vector a = load(x + i), b = load(x + i + kCount);
      const Vector c = load(x + i + 2 * kCount), d = load(x + i + 3 * kCount);
      s0 += a * a, s1 += b * b, s2 += c * c, s3 += d * d;
    }
    s0 += s1 + s2 + s3;
    for (std::size_t lane = 0; lane < kCount; ++lane) total += s0[lane];
  }
  for (; n > 0; ++x, --n) total += double{*x} * *x;  // fewer than kBlock left
  return total;
}

}  // namespace

double sum_of_squares(const float* x, std::size_t n) { return sum_of(x, n); }
double sum_of_squares(const double* x, std::size_t n) { return sum_of(x, n); }

}  // namespace pion::PION_TARGET
