// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

namespace pion {

// A row-major matrix that somebody else owns. Entry (i, j) is data[i * stride + j], so a
// block of rows or of columns (an attention head on either side) is again a view.
template <class T>
struct MatrixViewOf {
  T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;  // elements from one row to the next; >= cols

  T* row(std::int64_t i) const { return data + i * stride; }
  T& operator()(std::int64_t i, std::int64_t j) const { return data[i * stride + j]; }

  // The rows x cols block whose first entry is (row, col).
  MatrixViewOf block(std::int64_t row, std::int64_t col, std::int64_t block_rows,
                     std::int64_t block_cols) const {
    return {data + row * stride + col, block_rows, block_cols, stride};
  }

  operator MatrixViewOf<const T>() const
    requires(!std::is_const_v<T>)
  {
    return {data, rows, cols, stride};
  }
};

using MatrixView = MatrixViewOf<float>;
using ConstMatrixView = MatrixViewOf<const float>;

// A contiguous matrix.
template <class T>
MatrixViewOf<T> view(T* data, std::int64_t rows, std::int64_t cols) {
  return {data, rows, cols, cols};
}

}  // namespace pion
