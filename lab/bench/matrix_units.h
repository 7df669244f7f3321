// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace pion::bench {

// What a core can multiply bf16 numbers with, sums in f32. false and 0 where the CPU, the
// system or the architecture has none.
bool has_bf16_dot();    // vdpbf16ps on 512 bits (AVX512-BF16)
bool has_bf16_tiles();  // tdpbf16ps (AMX-BF16), and the system lets this process use it

// Floating-point operations of one round; what they were is in the function's name.
inline constexpr double kBf16DotFlops = 12.0 * 16 * 2 * 2;  // 12 vectors of 16 pairs
// 4 tiles 16x16, 32 deep
inline constexpr double kBf16TileFlops = 4.0 * 16 * 16 * 32 * 2;

// Rounds in registers alone. Must only be called where has_... is true.
void bf16_dot_rounds(std::int64_t rounds);
void bf16_tile_rounds(std::int64_t rounds);

}  // namespace pion::bench
