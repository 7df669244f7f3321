// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "pion/kernels/cpu_target.h"
#include "pion/kernels/kernel_call.h"
#include "pion/matrix_view.h"

namespace pion {

// Dense products of one matrix on one thread; T is float or double. Operands may have any
// row stride >= cols. `out` must not overlap an operand. If alpha is 0, A, B and X are
// not read.
//
// Each entry is summed in T in blocks of kGemmDepth terms. The result depends on the CPU
// target (fused multiply-adds or not), on nothing else.
//
//   scratch  kGemmScratch elements at least, overwritten; for packed blocks
//
// Throws std::invalid_argument on a shape mismatch.

// out = alpha X X^T + beta C, with X (m x k) and C, out (m x m), C symmetric.
// Half of the products are computed and mirrored, so `out` is symmetric to the bit. C may
// be an empty view if beta is 0.
template <class T>
void symmetric_product(T alpha, MatrixViewOf<const T> x, T beta, MatrixViewOf<const T> c,
                       MatrixViewOf<T> out, std::span<T> scratch,
                       CpuTarget target = cpu_target());

// out = alpha A B + beta C, with A (m x k), B (k x n) and C, out (m x n).
template <class T>
void product(T alpha, MatrixViewOf<const T> a, MatrixViewOf<const T> b, T beta,
             MatrixViewOf<const T> c, MatrixViewOf<T> out, std::span<T> scratch,
             CpuTarget target = cpu_target());

}  // namespace pion
