// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pion/matrix_view.h"
#include "pion/spectral/scratch.h"

namespace pion {

struct LanczosScratch {
  Scratch<double> basis;        // (steps x m)
  Scratch<double> tridiagonal;  // diagonal, then off-diagonal
};

// Largest eigenvalue of the symmetric positive semidefinite A (m x m), read only, by Lanczos
// with full reorthogonalization in double and a fixed random start. T is float or double.
//
// Up to m = 64 (float) or 256 (double) all m steps are taken and the result is exact up to
// rounding, however close the first two eigenvalues are. Beyond, it is a lower bound after
// k = 64 or 256 steps, and for a start uniform on the sphere and any A (Kuczynski & Wozniakowski
// 1992, SIAM J. Matrix Anal. Appl. 13(4), theorem 4.2)
//
//   P(relative error > e) <= 1.648 sqrt(m) exp(-sqrt(e) (2k - 1)).
//
// For sigma_1 = sqrt(lambda_1), 1 % too small is e = 0.02: below 2e-6 at k = 64, m = 4096; 8 %
// too small, which the high-pass family tolerates, is e = 0.15: below 1e-19.
template <class T>
double largest_eigenvalue(MatrixViewOf<const T> a, LanczosScratch& scratch);

}  // namespace pion
