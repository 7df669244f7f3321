// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/scratch.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pion {

ScratchMemory allocate_scratch(std::size_t bytes) {
  constexpr std::size_t kCacheLine = 64, kLargePage = std::size_t{2} << 20;
  const std::size_t unit = bytes >= kLargePage ? kLargePage : kCacheLine;
  const std::size_t size = (bytes + unit - 1) / unit * unit;
  const std::align_val_t alignment{unit};
  ScratchMemory memory(::operator new(size, alignment), FreeScratch{alignment});
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // a wish: kernels that have no large pages refuse, and nothing changes
  if (unit == kLargePage) madvise(memory.get(), size, MADV_HUGEPAGE);
#endif
  return memory;
}

}  // namespace pion
