// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/gemm.h"

#include <stdexcept>
#include <string>

namespace pion {

namespace {

std::string shape(std::int64_t rows, std::int64_t cols) {
  return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

template <class T>
void require_shape(const char* function, const char* name, MatrixViewOf<T> x,
                   std::int64_t rows, std::int64_t cols) {
  if (x.rows == rows && x.cols == cols && (x.stride >= cols || rows <= 1)) return;
  throw std::invalid_argument(std::string(function) + ": " + name + " must be " +
                              shape(rows, cols) + " with stride >= cols, got " +
                              shape(x.rows, x.cols) + " with stride " +
                              std::to_string(x.stride));
}

template <class T>
void require_scratch(const char* function, std::span<T> scratch) {
  if (scratch.size() >= kGemmScratch) return;
  throw std::invalid_argument(std::string(function) + ": scratch must have " +
                              std::to_string(kGemmScratch) + " elements, got " +
                              std::to_string(scratch.size()));
}

template <class T>
void run(const GemmCall<T>& call, CpuTarget target) {
  if (call.m == 0 || call.n == 0) return;
#ifdef PION_X86_KERNELS
  if (target == CpuTarget::kAvx512) return avx512::gemm(call);
  if (target == CpuTarget::kAvx2) return avx2::gemm(call);
#endif
  (void)target;
  portable::gemm(call);
}

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

}  // namespace

template <class T>
void symmetric_product(T alpha, MatrixViewOf<const T> x, T beta, MatrixViewOf<const T> c,
                       MatrixViewOf<T> out, std::span<T> scratch, CpuTarget target) {
  require_shape("symmetric_product", "out", out, x.rows, x.rows);
  if (beta != T{0}) require_shape("symmetric_product", "c", c, x.rows, x.rows);
  require_scratch("symmetric_product", scratch);
  run<T>({.m = size(x.rows),
          .n = size(x.rows),
          .k = alpha == T{0} ? 0 : size(x.cols),
          .alpha = alpha,
          .a = x.data,
          .a_stride = size(x.stride),
          .b = x.data,
          .b_stride = size(x.stride),
          .b_transposed = true,
          .beta = beta,
          .c = c.data,
          .c_stride = size(c.stride),
          .out = out.data,
          .out_stride = size(out.stride),
          .symmetric = true,
          .scratch = scratch.data()},
         target);
}

template <class T>
void product(T alpha, MatrixViewOf<const T> a, MatrixViewOf<const T> b, T beta,
             MatrixViewOf<const T> c, MatrixViewOf<T> out, std::span<T> scratch,
             CpuTarget target) {
  require_shape("product", "b", b, a.cols, b.cols);
  require_shape("product", "out", out, a.rows, b.cols);
  if (beta != T{0}) require_shape("product", "c", c, a.rows, b.cols);
  require_scratch("product", scratch);
  run<T>({.m = size(a.rows),
          .n = size(b.cols),
          .k = alpha == T{0} ? 0 : size(a.cols),
          .alpha = alpha,
          .a = a.data,
          .a_stride = size(a.stride),
          .b = b.data,
          .b_stride = size(b.stride),
          .b_transposed = false,
          .beta = beta,
          .c = c.data,
          .c_stride = size(c.stride),
          .out = out.data,
          .out_stride = size(out.stride),
          .symmetric = false,
          .scratch = scratch.data()},
         target);
}

template void symmetric_product<float>(float, ConstMatrixView, float, ConstMatrixView,
                                       MatrixView, std::span<float>, CpuTarget);
template void symmetric_product<double>(double, MatrixViewOf<const double>, double,
                                        MatrixViewOf<const double>, MatrixViewOf<double>,
                                        std::span<double>, CpuTarget);
template void product<float>(float, ConstMatrixView, ConstMatrixView, float,
                             ConstMatrixView, MatrixView, std::span<float>, CpuTarget);
template void product<double>(double, MatrixViewOf<const double>,
                              MatrixViewOf<const double>, double,
                              MatrixViewOf<const double>, MatrixViewOf<double>,
                              std::span<double>, CpuTarget);

}  // namespace pion
