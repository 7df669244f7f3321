// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pion/matrix_view.h"
#include "pion/spectral/scratch.h"

namespace pion {

struct LanczosScratch {
  Scratch<double> basis;        // (steps x m)
  Scratch<double> tridiagonal;  // diagonal, then off-diagonal
};

// Largest eigenvalue of the symmetric positive semidefinite A (m x m), read only, by at
// most `most_steps` steps of Lanczos with full reorthogonalization in double and a fixed
// random start. T is float or double.
//
// If most_steps >= m the result is exact up to rounding, however close the first two
// eigenvalues are. Else it is a lower bound after k = most_steps steps, and for a start
// uniform on the sphere and any A (Kuczynski & Wozniakowski 1992, SIAM J. Matrix Anal.
// Appl. 13(4))
//
//   P(relative error > e) <= 1.648 sqrt(m) exp(-sqrt(e) (2k - 1)).
//
// sigma_1 = sqrt(lambda_1) is then e / 2 too small. 1 % is e = 0.02: below 2e-6 at k = 64
// and m = 4096, below 2e-2 at k = 32. 8 %, which the high-pass family tolerates, is e =
// 0.15: below 1e-8 at k = 64.
template <class T>
double largest_eigenvalue(MatrixViewOf<const T> a, int most_steps,
                          LanczosScratch& scratch);

}  // namespace pion
