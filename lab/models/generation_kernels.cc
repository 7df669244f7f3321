// SPDX-License-Identifier: Apache-2.0
#include "lab/models/generation_kernels.h"

#include "pion/kernels/cpu_target.h"

namespace pion::lab {

namespace portable {
extern const DecodeKernels kDecodeKernels;
}
#ifdef PION_X86_KERNELS
namespace avx2 {
extern const DecodeKernels kDecodeKernels;
}
namespace avx512 {
extern const DecodeKernels kDecodeKernels;
}
#endif

const DecodeKernels& decode_kernels() {
#ifdef PION_X86_KERNELS
  const CpuTarget target = cpu_target();
  if (target >= CpuTarget::kAvx512) return avx512::kDecodeKernels;
  if (target == CpuTarget::kAvx2) return avx2::kDecodeKernels;
#endif
  return portable::kDecodeKernels;
}

}  // namespace pion::lab
