// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <vector>

#include "pion/optim/routing.h"
#include "pion/torch/optimizer.h"

namespace pion {

// What routing needs to know of a module's parameters, in the order of
// named_parameters(): names, shapes, the type of the module that owns each ("Linear",
// "Embedding", "Conv2d", the class's own name for other modules) and which share storage
// with an earlier one. A parameter that is registered twice appears twice, the second
// time as tied.
std::vector<ParameterDescription> describe(const torch::nn::Module& module);

// Decides which parameter takes which rule; see pion/optim/routing.h. Throws c10::Error.
Routing route(const torch::nn::Module& module, const RoutingOptions& options = {});

// The optimizer of a routing: parameters of equal rule and heads share a group. The
// routing must fit the module by names and shapes; tied parameters are stepped once, by
// the first name. Frozen ones (requires_grad false) are held too, without state, and are
// stepped once they are unfrozen and have a gradient.
std::unique_ptr<Optimizer> make_optimizer(const torch::nn::Module& module,
                                          const Routing& routing);

// Both in one call:
//
//   auto optimizer = pion::make_optimizer(
//       *model, {.matrices = pion::MuonOptions(0.02).rule(),
//                .rest = pion::AdamWOptions(3e-4).weight_decay(0.1).rule(),
//                .decay_vectors = false,
//                .lr_by_role = {{"embedding", 1e-3}}});
std::unique_ptr<Optimizer> make_optimizer(const torch::nn::Module& module,
                                          const RoutingOptions& options = {});

}  // namespace pion
