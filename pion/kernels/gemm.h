// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <span>

#include "pion/executor.h"
#include "pion/kernels/cpu_target.h"
#include "pion/kernels/gemm_call.h"
#include "pion/matrix_view.h"

namespace pion {

// Dense products of one matrix; T is float or double. Operands may have any row stride
// >= cols. `out` must not overlap A, B, X or Q; it may be C itself, or apart from it.
// If alpha is 0, A, B and X are not read.
//
// Each entry is summed in T in blocks of kGemmDepth terms. The result depends on the CPU
// target (fused multiply-adds or not), on nothing else: not on the threads, on strides or
// on the shape of the rest of the matrix.
//
// All throw std::invalid_argument on a shape mismatch, or if the memory is too small,
// before anything is written.

// Where a product packs blocks of its operands: kGemmScratch elements for each thread,
// overwritten; aligned to 64 bytes for full speed. Without an executor the calling thread
// does everything.
template <class T>
struct GemmMemory {
  std::span<T> scratch;
  Executor* executor = nullptr;

  template <class Memory>
    requires std::convertible_to<Memory, std::span<T>>
  GemmMemory(Memory&& memory) : scratch(memory) {}
  GemmMemory(std::span<T> memory, Executor& threads)
      : scratch(memory), executor(&threads) {}
};

// out = alpha X X^T + beta C, with X (m x k) and C, out (m x m), C symmetric.
// Half of the products are computed and mirrored, so `out` is symmetric to the bit. C may
// be an empty view if beta is 0.
template <class T>
void symmetric_product(T alpha, MatrixViewOf<const T> x, T beta, MatrixViewOf<const T> c,
                       MatrixViewOf<T> out, GemmMemory<T> memory,
                       CpuTarget target = cpu_target());

// out = alpha A B + beta C, with A, B, C, out (m x m). A, B and C are symmetric and A and
// B commute, as polynomials of one matrix do: half is computed, as above. Where A and B
// are the same matrix the result is symmetric_product's to the bit, faster.
template <class T>
void commuting_product(T alpha, MatrixViewOf<const T> a, MatrixViewOf<const T> b, T beta,
                       MatrixViewOf<const T> c, MatrixViewOf<T> out, GemmMemory<T> memory,
                       CpuTarget target = cpu_target());

// The same and delta on the diagonal: out = alpha A B + beta C + delta I.
template <class T>
void commuting_product(T alpha, MatrixViewOf<const T> a, MatrixViewOf<const T> b, T beta,
                       MatrixViewOf<const T> c, T delta, MatrixViewOf<T> out,
                       GemmMemory<T> memory, CpuTarget target = cpu_target());

// out = alpha A B + beta C, with A (m x k), B (k x n) and C, out (m x n).
template <class T>
void product(T alpha, MatrixViewOf<const T> a, MatrixViewOf<const T> b, T beta,
             MatrixViewOf<const T> c, MatrixViewOf<T> out, GemmMemory<T> memory,
             CpuTarget target = cpu_target());

// The end of a step, Q symmetric (m x m), X and W of one shape:
//   W <- decay W + alpha Q X   if they are (m x n)
//   W <- decay W + alpha X Q   if they are (n x m), n != m
// Q X is never in memory as a whole. Returns its sum of squares: of floats in float over
// kGemmRows rows of one vector pair, and their totals in double, always in the same
// order. Operands are read whatever alpha is. If decay is 0, W is not read.
template <class T>
double product_update(T alpha, MatrixViewOf<const T> q, MatrixViewOf<const T> x, T decay,
                      MatrixViewOf<T> weight, GemmMemory<T> memory,
                      CpuTarget target = cpu_target());

// Runs f32 multiply-adds in registers alone and returns the floating-point operations:
// what one core can reach.
double multiply_add_peak(std::size_t repetitions, CpuTarget target = cpu_target());

}  // namespace pion
