// SPDX-License-Identifier: Apache-2.0
// How a polynomial map of one shape is multiplied out in 16-bit products on other devices
// than the CPU, by LibTorch and by Python; host arithmetic.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "pion/spectral/spectral_map.h"

namespace pion {

// One polynomial T = a I + b A + c A^2 and the powers of two by which X, A, T, Q and
// W = T A are kept in fp16 around it: as large as their largest values allow.
struct FormStep {
  Quintic p;
  double into = 0;  // the largest singular value that comes in
  double x_scale = 1, gram_scale = 1, t_scale = 1, q_scale = 1, w_scale = 1;
  double slope = 0;  // T / A at least, where a is 0
};

// By which form, from which step anew and with which scales. Work in units of 2 m^3, for X
// of m x n, r = n / m, K steps in segments of k:
//
//                                           whole products        symmetric ones by half
//   direct      X <- T X in every step      K (2 r + 1)           K (3 r + 1) / 2
//   Gram space  Q = T_k ... T_1, X <- Q X   sum of 2 r + 4 k - 3  sum of (3 r + 4 k - 3) / 2
//
// A segment is what Gram space does between two computations of A from X. It ends before
// the linear coefficients of its steps but the last have grown by more than 13, since
// rounding errors of A grow as they do. Pion's filters are one segment (four promotions
// grow 12.4), five steps of Muon two (2 + 3).
struct MapForm {
  std::vector<FormStep> steps;
  std::vector<std::pair<std::size_t, std::size_t>> segments;  // (first, end) of steps
  double aspect = 1;                                          // n / m
  bool gram = false;            // Gram space is less work, and fp16 holds what it needs
  bool gram_by_halves = false;  // the same where symmetric products cost one half
  bool fades = false;  // suppressed matrices are too small for fp16 unless scaled up
};

// Of kPolynomial maps; kept for the next call of this thread.
const MapForm& map_form(const SpectralMap& map, std::int64_t rows, std::int64_t cols);

}  // namespace pion
