// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/elementwise.h"

namespace pion {

#ifdef PION_X86_KERNELS
#define PION_RUN(target, call)                 \
  (target >= CpuTarget::kAvx512 ? avx512::call \
   : target == CpuTarget::kAvx2 ? avx2::call   \
                                : portable::call)
#else
#define PION_RUN(target, call) ((void)target, portable::call)
#endif

double gradient_squares(const GradientEntries& gradient, std::size_t n,
                        CpuTarget target) {
  return PION_RUN(target, gradient_squares(gradient, n));
}
double adamw(const AdamWCall& call, CpuTarget target) {
  return PION_RUN(target, adamw(call));
}
double sgd(const SgdCall& call, CpuTarget target) { return PION_RUN(target, sgd(call)); }

}  // namespace pion
