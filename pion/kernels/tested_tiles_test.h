// SPDX-License-Identifier: Apache-2.0
// The tables of bf16 kernels that tests run: those of this machine, and the emulated one.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "pion/kernels/tiles.h"

namespace pion {

struct TestedTiles {
  std::string name;
  const TileKernels* kernels;

  friend std::ostream& operator<<(std::ostream& out, const TestedTiles& tested) {
    return out << tested.name;
  }
};

inline std::vector<TestedTiles> tested_tiles() {
  std::vector<TestedTiles> all;
  for (const CpuTarget target : supported_cpu_targets()) {
    if (!has_bf16(target)) continue;
    all.push_back({std::string(cpu_target_name(target)), &tile_kernels(target)});
  }
#ifdef PION_EMULATED_TILES
  static constexpr TileKernels kEmulated{
      emulated_bf16::load_tiles, emulated_bf16::transpose_tiles, emulated_bf16::gram,
      emulated_bf16::symmetric,  emulated_bf16::round_gram,      emulated_bf16::update,
      emulated_bf16::advance,    emulated_bf16::multiply_peak};
  all.push_back({"emulated_bf16", &kEmulated});
#endif
  return all;
}

}  // namespace pion
