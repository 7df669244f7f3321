// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pion/kernels/block_load_call.h"
#include "pion/kernels/cpu_target.h"

namespace pion {

// The first pass of an f32 step over memory: reads a gradient, moves its momentum, writes
// X; see block_load_call.h. The results are the same bits on every target. Returns the
// bits of the largest |D|; 0x7f800000 and above: an entry is not finite.
std::uint32_t load_block(const BlockLoad& call, CpuTarget target = cpu_target());

}  // namespace pion
