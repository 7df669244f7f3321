// SPDX-License-Identifier: Apache-2.0
#include "lab/models/generation_kernels.h"

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

const DecodeKernels& decode_kernels([[maybe_unused]] CpuTarget target) {
#ifdef PION_X86_KERNELS
  if (target >= CpuTarget::kAvx512) return avx512::kDecodeKernels;
  if (target == CpuTarget::kAvx2) return avx2::kDecodeKernels;
#endif
  return portable::kDecodeKernels;
}

}  // namespace pion::lab
