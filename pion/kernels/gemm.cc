// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/gemm.h"

#include <algorithm>
#include <array>
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
std::size_t threads_of(const GemmMemory<T>& memory) {
  return memory.executor == nullptr
             ? 1
             : static_cast<std::size_t>(memory.executor->threads());
}

template <class T>
void require_scratch(const char* function, const GemmMemory<T>& memory) {
  const std::size_t needed = threads_of(memory) * kGemmScratch;
  if (memory.scratch.size() >= needed) return;
  throw std::invalid_argument(std::string(function) + ": scratch must have " +
                              std::to_string(needed) + " elements, got " +
                              std::to_string(memory.scratch.size()));
}

template <class T>
void run(const GemmCall<T>& call, CpuTarget target) {
  if (call.m == 0 || call.n == 0) return;
#ifdef PION_X86_KERNELS
  if (target >= CpuTarget::kAvx512) return avx512::gemm(call);
  if (target == CpuTarget::kAvx2) return avx2::gemm(call);
#endif
  (void)target;
  portable::gemm(call);
}

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

// A part of the output that one task computes.
struct Part {
  std::size_t row, rows, column, columns;
};

// The call for a part, as if it were the whole of a product that is not symmetric.
template <class T>
GemmCall<T> call_for(const Part& part, const GemmCall<T>& whole) {
  GemmCall<T> call = whole;
  call.m = part.rows, call.n = part.columns;
  call.a += call.a_transposed ? part.row : part.row * call.a_stride;
  call.b += call.b_transposed ? part.column * call.b_stride : part.column;
  if (call.beta != T{0}) call.c += part.row * call.c_stride + part.column;
  call.out += part.row * call.out_stride + part.column;
  call.symmetric = false;
  return call;
}

// Runs compute(i) for i < parts on the executor's threads, `call.scratch` set.
template <class T, class Compute>
void run_parts(std::size_t parts, const GemmMemory<T>& memory, Compute compute) {
  const auto task = [&](int part, int thread) {
    compute(size(part), memory.scratch.data() + size(thread) * kGemmScratch);
  };
  if (memory.executor != nullptr) {
    memory.executor->run(static_cast<int>(parts), task);
  } else {
    for (std::size_t part = 0; part < parts; ++part) task(static_cast<int>(part), 0);
  }
}

// Squares of this many rows and columns are computed each by a task, those below the
// diagonal mirrored by the one above it: enough of them for 8 threads, and large enough
// that computing (side^2) hides packing (2 side).
std::size_t square_side(std::size_t m) {
  return m <= 128 ? 128 : m <= 512 ? 64 : m <= 1024 ? 128 : 256;
}

template <class T>
void run_symmetric(const GemmCall<T>& whole, const GemmMemory<T>& memory,
                   CpuTarget target) {
  const std::size_t side = square_side(whole.m);
  const std::size_t count = (whole.m + side - 1) / side;
  run_parts(count * (count + 1) / 2, memory, [&](std::size_t part, T* scratch) {
    // row by row of the upper triangle
    std::size_t row = 0;
    for (; part >= count - row; ++row) part -= count - row;
    const std::size_t column = row + part, i = row * side, j = column * side;
    GemmCall<T> call =
        call_for({i, std::min(side, whole.m - i), j, std::min(side, whole.m - j)}, whole);
    call.symmetric = row == column;
    if (row != column) call.mirrored = whole.out + j * whole.out_stride + i;
    call.scratch = scratch;
    run(call, target);
  });
}

// A grid of 16 x 16 parts at most, the same for every number of threads.
struct Grid {
  static constexpr std::size_t kSide = 16;
  std::size_t rows, columns;  // of one part
  std::size_t m, n;

  // 384 rows, two packed blocks of the kernel; 256 columns: 100 us at 64 deep and 200
  // GFLOP/s; more where the grid would have more parts
  Grid(std::size_t m, std::size_t n)
      : rows(2 * kGemmRows * parts_of(m, 2 * kGemmRows * kSide)),
        columns(kGemmSumCols * parts_of(n, kGemmSumCols * kSide)),
        m(m),
        n(n) {}
  static std::size_t parts_of(std::size_t whole, std::size_t part) {
    return std::max<std::size_t>(1, (whole + part - 1) / part);
  }
  std::size_t parts() const { return parts_of(m, rows) * parts_of(n, columns); }
  Part part(std::size_t index) const {
    const std::size_t across = parts_of(n, columns);
    const std::size_t row = index / across * rows, column = index % across * columns;
    return {row, std::min(rows, m - row), column, std::min(columns, n - column)};
  }
};

template <class T>
void run_product(const GemmCall<T>& whole, const GemmMemory<T>& memory,
                 CpuTarget target) {
  const Grid grid(whole.m, whole.n);
  run_parts(grid.parts(), memory, [&](std::size_t part, T* scratch) {
    GemmCall<T> call = call_for(grid.part(part), whole);
    call.scratch = scratch;
    run(call, target);
  });
}

template <class T>
double run_update(const GemmCall<T>& whole, const GemmMemory<T>& memory,
                  CpuTarget target) {
  const Grid grid(whole.m, whole.n);
  std::array<double, Grid::kSide * Grid::kSide> squares{};
  run_parts(grid.parts(), memory, [&](std::size_t part, T* scratch) {
    GemmCall<T> call = call_for(grid.part(part), whole);
    call.squares = &squares[part];
    call.scratch = scratch;
    run(call, target);
  });
  double total = 0.0;
  for (std::size_t part = 0; part < grid.parts(); ++part) total += squares[part];
  return total;
}

template <class T>
void run_all(GemmCall<T> call, const GemmMemory<T>& memory, CpuTarget target) {
  if (threads_of(memory) == 1) {
    call.scratch = memory.scratch.data();
    run(call, target);
  } else if (call.symmetric) {
    run_symmetric(call, memory, target);
  } else {
    run_product(call, memory, target);
  }
}

// Whether a symmetric A is best read as its transpose: a small one needs no packing then,
// a large one is packed faster by rows.
template <class T>
bool reads_transposed(const MatrixViewOf<const T>& a) {
  return size(a.rows) <= kGemmInPlace;
}

// alpha op(A) op(B) + beta C without strides of an absent C.
template <class T>
GemmCall<T> call_of(T alpha, MatrixViewOf<const T> a, MatrixViewOf<const T> b, T beta,
                    MatrixViewOf<const T> c, MatrixViewOf<T> out) {
  return {.m = size(out.rows),
          .n = size(out.cols),
          .k = alpha == T{0} ? 0 : size(a.cols),
          .alpha = alpha,
          .a = a.data,
          .a_stride = size(a.stride),
          .a_transposed = false,
          .b = b.data,
          .b_stride = size(b.stride),
          .b_transposed = false,
          .beta = beta,
          .c = c.data,
          .c_stride = size(c.stride),
          .out = out.data,
          .out_stride = size(out.stride),
          .symmetric = false,
          .mirrored = nullptr,
          .squares = nullptr,
          .scratch = nullptr};
}

}  // namespace

template <class T>
void symmetric_product(T alpha, MatrixViewOf<const T> x, T beta, MatrixViewOf<const T> c,
                       MatrixViewOf<T> out, GemmMemory<T> memory, CpuTarget target) {
  require_shape("symmetric_product", "out", out, x.rows, x.rows);
  if (beta != T{0}) require_shape("symmetric_product", "c", c, x.rows, x.rows);
  require_scratch("symmetric_product", memory);
  GemmCall<T> call = call_of(alpha, x, x, beta, c, out);
  call.b_transposed = call.symmetric = true;
  run_all(call, memory, target);
}

template <class T>
void commuting_product(T alpha, MatrixViewOf<const T> a, MatrixViewOf<const T> b, T beta,
                       MatrixViewOf<const T> c, T delta, MatrixViewOf<T> out,
                       GemmMemory<T> memory, CpuTarget target) {
  require_shape("commuting_product", "a", a, a.rows, a.rows);
  require_shape("commuting_product", "b", b, a.rows, a.rows);
  require_shape("commuting_product", "out", out, a.rows, a.rows);
  if (beta != T{0}) require_shape("commuting_product", "c", c, a.rows, a.rows);
  require_scratch("commuting_product", memory);
  GemmCall<T> call = call_of(alpha, a, b, beta, c, out);
  call.symmetric = true;
  call.a_transposed = reads_transposed(a);
  run_all(call, memory, target);
  if (delta == T{0}) return;
  for (std::int64_t i = 0; i < out.rows; ++i) out(i, i) += delta;
}

template <class T>
void commuting_product(T alpha, MatrixViewOf<const T> a, MatrixViewOf<const T> b, T beta,
                       MatrixViewOf<const T> c, MatrixViewOf<T> out, GemmMemory<T> memory,
                       CpuTarget target) {
  commuting_product<T>(alpha, a, b, beta, c, T{0}, out, memory, target);
}

template <class T>
void product(T alpha, MatrixViewOf<const T> a, MatrixViewOf<const T> b, T beta,
             MatrixViewOf<const T> c, MatrixViewOf<T> out, GemmMemory<T> memory,
             CpuTarget target) {
  require_shape("product", "b", b, a.cols, b.cols);
  require_shape("product", "out", out, a.rows, b.cols);
  if (beta != T{0}) require_shape("product", "c", c, a.rows, b.cols);
  require_scratch("product", memory);
  run_all(call_of(alpha, a, b, beta, c, out), memory, target);
}

template <class T>
double product_update(T alpha, MatrixViewOf<const T> q, MatrixViewOf<const T> x, T decay,
                      MatrixViewOf<T> weight, GemmMemory<T> memory, CpuTarget target) {
  const bool wide = x.rows == q.rows;
  require_shape("product_update", "q", q, q.rows, q.rows);
  require_shape("product_update", "x", x, wide ? q.rows : x.rows, wide ? x.cols : q.rows);
  require_shape("product_update", "weight", weight, x.rows, x.cols);
  require_scratch("product_update", memory);
  GemmCall<T> call = wide ? call_of<T>(alpha, q, x, decay, weight, weight)
                          : call_of<T>(alpha, x, q, decay, weight, weight);
  call.k = size(q.rows);
  call.a_transposed = wide && reads_transposed(q);
  return run_update(call, memory, target);
}

double multiply_add_peak(std::size_t repetitions, CpuTarget target) {
  // volatile: the compiler must neither know the factor nor drop the result
  static volatile float factor = 0.5f;
  [[maybe_unused]] static thread_local volatile float kept;
  float last = 0.0f;
  const double operations = [&] {
#ifdef PION_X86_KERNELS
    if (target >= CpuTarget::kAvx512) {
      return avx512::multiply_add_peak(repetitions, factor, &last);
    }
    if (target == CpuTarget::kAvx2) {
      return avx2::multiply_add_peak(repetitions, factor, &last);
    }
#endif
    (void)target;
    return portable::multiply_add_peak(repetitions, factor, &last);
  }();
  kept = last;
  return operations;
}

#define PION_INSTANTIATE(T)                                                              \
  template void symmetric_product<T>(T, MatrixViewOf<const T>, T, MatrixViewOf<const T>, \
                                     MatrixViewOf<T>, GemmMemory<T>, CpuTarget);         \
  template void commuting_product<T>(T, MatrixViewOf<const T>, MatrixViewOf<const T>, T, \
                                     MatrixViewOf<const T>, T, MatrixViewOf<T>,          \
                                     GemmMemory<T>, CpuTarget);                          \
  template void commuting_product<T>(T, MatrixViewOf<const T>, MatrixViewOf<const T>, T, \
                                     MatrixViewOf<const T>, MatrixViewOf<T>,             \
                                     GemmMemory<T>, CpuTarget);                          \
  template void product<T>(T, MatrixViewOf<const T>, MatrixViewOf<const T>, T,           \
                           MatrixViewOf<const T>, MatrixViewOf<T>, GemmMemory<T>,        \
                           CpuTarget);                                                   \
  template double product_update<T>(T, MatrixViewOf<const T>, MatrixViewOf<const T>, T,  \
                                    MatrixViewOf<T>, GemmMemory<T>, CpuTarget);
PION_INSTANTIATE(float)
PION_INSTANTIATE(double)
#undef PION_INSTANTIATE

}  // namespace pion
