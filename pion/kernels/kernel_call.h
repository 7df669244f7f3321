// SPDX-License-Identifier: Apache-2.0
// The kernels of every target that need no call of their own. Declarations only: this
// header is read by sources built for different instruction sets.
#pragma once

#include <cstddef>

namespace pion {

namespace portable {
double sum_of_squares(const float* x, std::size_t n);
double sum_of_squares(const double* x, std::size_t n);
}  // namespace portable
namespace avx2 {
double sum_of_squares(const float* x, std::size_t n);
double sum_of_squares(const double* x, std::size_t n);
}  // namespace avx2
namespace avx512 {
double sum_of_squares(const float* x, std::size_t n);
double sum_of_squares(const double* x, std::size_t n);
}  // namespace avx512

}  // namespace pion
