// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/block_map.h"

#include "pion/spectral/f32_map.h"
#include "pion/spectral/tile_map.h"

namespace pion {

std::unique_ptr<BlockMap> make_block_map(CpuTarget target) {
  if (has_bf16(target)) return std::make_unique<TileMap>(target);
  return std::make_unique<F32Map>(target);
}

}  // namespace pion
