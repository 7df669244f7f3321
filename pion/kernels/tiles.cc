// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/tiles.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace pion {

const TileKernels& tile_kernels(CpuTarget target) {
#ifdef PION_X86_KERNELS
  static constexpr TileKernels kAvx512{
      avx512_bf16::load_tiles, avx512_bf16::transpose_tiles, avx512_bf16::gram,
      avx512_bf16::symmetric,  avx512_bf16::round_gram,      avx512_bf16::update,
      avx512_bf16::advance,    avx512_bf16::multiply_peak};
  static constexpr TileKernels kAmx{amx_bf16::load_tiles, amx_bf16::transpose_tiles,
                                    amx_bf16::gram,       amx_bf16::symmetric,
                                    amx_bf16::round_gram, amx_bf16::update,
                                    amx_bf16::advance,    amx_bf16::multiply_peak};
  if (target == CpuTarget::kAmxBf16) return kAmx;
  if (target == CpuTarget::kAvx512Bf16) return kAvx512;
#endif
  throw std::invalid_argument(
      "tile_kernels: the target must be avx512_bf16 or amx_bf16, got " +
      std::string(cpu_target_name(target)));
}

std::size_t item_count(const TileProduct& product) {
  std::size_t items = 0;
  for (std::size_t group = 0; group < product.col_blocks; group += product.group) {
    items += product.symmetric ? std::min(group + product.group, product.col_blocks)
                               : product.row_blocks;
  }
  return items;
}

}  // namespace pion
