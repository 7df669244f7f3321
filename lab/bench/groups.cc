// SPDX-License-Identifier: Apache-2.0
// The tables of `pion bench`. Shapes are those of the models' config.json: head_dim,
// num_attention_heads, num_key_value_heads, hidden_size, intermediate_size.
#include "lab/bench/workload.h"

namespace pion::bench {

const std::vector<Group>& groups() {
  using enum Precision;
  static const std::vector<std::string> kAllMatrixRules = {"pion2", "pion3", "pion4",
                                                           "pion_auto", "muon"};
  static const std::vector<Group> all = {
      {.name = "heads",
       .title = "Attention per head: Q, K, V of Qwen2.5-0.5B, Qwen3-0.6B, 1.7B, 4B",
       .shapes = {"14x64x896", "2x64x896", "16x128x1024", "8x128x1024", "16x128x2048",
                  "8x128x2048", "32x128x2560", "8x128x2560"},
       .quick = {"2x64x896", "8x128x1024"},
       .rules = kAllMatrixRules,
       .precisions = {kFast, kAccurate, kF32}},
      {.name = "output",
       .title = "Attention per head: output projections of the same models, heads cut "
                "the columns",
       .shapes = {"14x896x64:cols", "16x1024x128:cols", "16x2048x128:cols",
                  "32x2560x128:cols"},
       .quick = {},
       .rules = {"pion2", "muon"},
       .precisions = {kFast, kAccurate}},
      {.name = "whole",
       .title = "Attention projections as one matrix each",
       .shapes = {"896x896", "1024x2048", "2048x2048", "2560x4096"},
       .quick = {},
       .rules = {"pion2", "pion3", "muon"},
       .precisions = {kFast, kAccurate}},
      {.name = "mlp",
       .title = "MLP: down projections (hidden x intermediate), then up and gate",
       .shapes = {"896x4864", "1024x3072", "2048x6144", "2560x9728", "4864x896",
                  "3072x1024", "6144x2048", "9728x2560"},
       .quick = {},
       .rules = {"pion2", "pion3", "muon"},
       .precisions = {kFast, kAccurate}},
      {.name = "square",
       .title = "Square matrices, where symmetry is the only gain",
       .shapes = {"1024x1024", "2048x2048"},
       .quick = {},
       .rules = {"pion2", "pion3", "muon"},
       .precisions = {kFast, kAccurate}},
      {.name = "policy",
       .title = "Hidden matrices of small policies (two transformer layers of width 64; "
                "a 256-wide MLP)",
       .shapes = {"8*64x64+2*256x64+2*64x256", "2*256x256"},
       .quick = {"8*64x64+2*256x64+2*64x256"},
       .rules = {"pion2", "pion_auto", "muon"},
       .precisions = {kFast, kAccurate, kF32}},
      {.name = "tiny",
       .title = "Tiny matrices",
       .shapes = {"32x64", "64x64", "64x256", "128x128"},
       .quick = {"32x64", "64x64", "64x256"},
       .rules = {"pion2", "muon"},
       .precisions = {kFast, kAccurate, kF32}},
      {.name = "head_count",
       .title = "Cost over the number of heads",
       .shapes = {"1x128x1024", "2x128x1024", "4x128x1024", "8x128x1024", "16x128x1024",
                  "32x128x1024", "64x128x1024"},
       .quick = {},
       .rules = {"pion2"},
       .precisions = {kFast, kAccurate}},
      {.name = "flat",
       .title = "White-noise gradients, which the filter drives towards zero",
       .shapes = {"64x256", "8x128x1024", "1024x1024"},
       .quick = {"64x256"},
       .rules = {"pion2", "muon"},
       .precisions = {kFast, kAccurate, kF32},
       .spectrum = Spectrum::kFlat},
      {.name = "outside",
       .title = "What is left of a step without its spectral map",
       .shapes = {"64x256", "896x896", "1024x1024", "2048x2048", "2048x6144"},
       .quick = {"64x256"},
       .rules = {"muon"},
       .precisions = {kFast},
       .outside_map = true},
      {.name = "elementwise",
       .title = "Element-wise rules: one matrix, many small tensors, a layer of "
                "Qwen3-0.6B",
       .shapes = {"64x64", "256x256", "1024x1024", "2048x6144",
                  "8*64x64+2*256x64+2*64x256", "256*1x1024",
                  "2048x1024+2*1024x1024+1024x2048+2*3072x1024+1024x3072"},
       .quick = {"256x256", "256*1x1024"},
       .rules = {"adamw", "sgd"},
       .precisions = {}},
  };
  return all;
}

}  // namespace pion::bench
