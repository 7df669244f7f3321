// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "pion/bfloat16.h"
#include "pion/matrix_view.h"

namespace pion {

// Where the entries D of one block come from: a gradient and, if `momentum` has data, its
// average
//
//   M <- mu M + share G
//   D = nesterov ? mu M + share G : M
//
// or else D = G. Exactly one of the gradients has data.
struct BlockSource {
  ConstMatrixView gradient;
  MatrixViewOf<const bfloat16> narrow_gradient;
  MatrixView momentum;  // read, written
  float mu = 0, share = 1;
  bool nesterov = false;

  std::int64_t rows() const {
    return gradient.data != nullptr ? gradient.rows : narrow_gradient.rows;
  }
  std::int64_t cols() const {
    return gradient.data != nullptr ? gradient.cols : narrow_gradient.cols;
  }
};

}  // namespace pion
