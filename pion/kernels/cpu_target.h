// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

namespace pion {

// The instruction sets that the kernels are built for, each one source and one set of
// flags.
enum class CpuTarget : int {
  kPortable,  // what every CPU of the architecture has: SSE2 on x86-64
  kAvx2,      // AVX2 and FMA
  kAvx512,    // AVX-512F, and AVX2 and FMA
};

// The target that all kernels use unless a caller names one: the widest that this machine
// supports, or the one in the environment variable PION_CPU_TARGET (portable, avx2,
// avx512). Chosen once. Throws std::invalid_argument if the variable names none of them
// or one that this machine does not support.
CpuTarget cpu_target();

// The same choice for a given request; an empty one asks for the widest.
CpuTarget choose_cpu_target(std::string_view requested);

// All targets that this build and this machine support, narrowest first.
std::vector<CpuTarget> supported_cpu_targets();

std::string_view cpu_target_name(CpuTarget target);

}  // namespace pion
