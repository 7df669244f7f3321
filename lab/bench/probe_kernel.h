// SPDX-License-Identifier: Apache-2.0
// Loops that show what a core can do. Built once per CPU target, like the kernels of
// pion/kernels.
#pragma once

#include <cstddef>

namespace pion {

#define PION_PROBES                                                                   \
  /* Rounds of 12 independent chains x <- x b + c of a whole vector, in registers. */ \
  float multiply_add_rounds(std::size_t rounds);                                      \
  /* Floating-point operations of one round. */                                       \
  double multiply_add_flops();                                                        \
  /* Reads n floats; n is a multiple of 128. */                                       \
  float read_stream(const float* x, std::size_t n);                                   \
  /* x <- x / 2 + 1: reads and writes n floats, in place; n is a multiple of 128. */  \
  void update_stream(float* x, std::size_t n);

namespace portable {
PION_PROBES
}
namespace avx2 {
PION_PROBES
}
namespace avx512 {
PION_PROBES
}
#undef PION_PROBES

}  // namespace pion
