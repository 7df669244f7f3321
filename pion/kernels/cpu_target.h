// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

namespace pion {

// The instruction sets that the kernels are built for, each one source and one set of
// flags, narrowest first. A target uses the kernels of the ones before it where it has
// none of its own. NEON would go here.
enum class CpuTarget : int {
  kPortable,    // what every CPU of the architecture has: SSE2 on x86-64
  kAvx2,        // AVX2 and FMA
  kAvx512,      // AVX-512F, and AVX2 and FMA
  kAvx512Bf16,  // and AVX-512 BW, VL, BF16: dot products of bf16 pairs
  kAmxBf16,     // and AMX: products of 16 x 32 tiles of bf16
};

// The target that all kernels use unless a caller names one: the fastest that this
// machine supports, or the one in the environment variable PION_CPU_TARGET (portable,
// avx2, avx512, avx512_bf16, amx_bf16). Chosen once. Throws std::invalid_argument if the
// variable names none of them or one that this machine does not support.
CpuTarget cpu_target();

// The same choice for a given request. An empty one asks for the fastest, which is the
// widest but for avx512_bf16 on Intel: one core measured there does 105 GFLOP/s with
// VDPBF16PS and 212 with f32.
CpuTarget choose_cpu_target(std::string_view requested);

// All targets that this build and this machine support, narrowest first.
std::vector<CpuTarget> supported_cpu_targets();

std::string_view cpu_target_name(CpuTarget target);

// Whether the target multiplies bf16 (see tiles.h).
inline bool has_bf16(CpuTarget target) { return target >= CpuTarget::kAvx512Bf16; }

}  // namespace pion
