// SPDX-License-Identifier: Apache-2.0
// The sides of a measurement: pion, and what it is compared with. All take the same step
// on the same problem, from zero momentum; sides_test.cc holds them to it.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "lab/bench/interleave.h"
#include "lab/bench/problem.h"
#include "pion/spectral/coefficients.h"

namespace pion::bench {

struct Side {
  Contender contender;
  // What it has made of the weights, one per parameter, in the problem's layout.
  std::function<std::vector<at::Tensor>()> weights;
};

// pion::Optimizer, as users of LibTorch call it. `precision` counts for pion and muon.
Side pion_side(const Problem& problem, Precision precision);

// Peers, of ATen operations. For matrix rules:
//
//   optim_muon      torch.optim.Muon's step, each head a parameter of its own (Muon only)
//   per_head_bf16   the same with Pion's map (Pion only, where there are heads)
//   plain_bf16      A = X X^T; B = b A + c A A; X = a X + B X in bf16, the heads of a
//                   parameter as one batched product
//   addmm_bf16      the same with the sums inside the products (addmm, baddbmm)
//   addmm_f32       the same in f32; if asked for
//
// For adamw and sgd: fused, LibTorch's multi-tensor step. peer_names() has all of them.
std::vector<Side> peer_sides(const Problem& problem, bool with_f32);

// The spectral map of the peers on (rows, cols) or (heads, rows, cols) of any floating
// type. Divides `input` by its norm in place. `inside`: sums inside the products.
at::Tensor peer_map(const at::Tensor& input, const QuinticSequence& sequence,
                    bool inside);

// What a step costs beside its map: pion's passes over memory, by its bf16 kernels, and
// the ATen operations lerp_, lerp, bfloat16, norm, div_, mul_, add_. Needs a target with
// bf16.
std::vector<Contender> outside_map_contenders(const Problem& problem);

}  // namespace pion::bench
