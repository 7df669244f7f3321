// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/sum_of_squares.h"

#include "pion/kernels/kernel_call.h"

namespace pion {

namespace {

template <class T>
double run(std::span<const T> x, CpuTarget target) {
#ifdef PION_X86_KERNELS
  if (target >= CpuTarget::kAvx512) return avx512::sum_of_squares(x.data(), x.size());
  if (target == CpuTarget::kAvx2) return avx2::sum_of_squares(x.data(), x.size());
#endif
  (void)target;
  return portable::sum_of_squares(x.data(), x.size());
}

}  // namespace

double sum_of_squares(std::span<const float> x, CpuTarget target) {
  return run(x, target);
}
double sum_of_squares(std::span<const double> x, CpuTarget target) {
  return run(x, target);
}

}  // namespace pion
