// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/block_load.h"

namespace pion {

std::uint32_t load_block(const BlockLoad& call, CpuTarget target) {
#ifdef PION_X86_KERNELS
  if (target >= CpuTarget::kAvx512) return avx512::load_block(call);
  if (target == CpuTarget::kAvx2) return avx2::load_block(call);
#endif
  (void)target;
  return portable::load_block(call);
}

}  // namespace pion
