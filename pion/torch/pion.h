// SPDX-License-Identifier: Apache-2.0
// LibTorch front end: torch::optim::Optimizer classes over pion's rules.
#pragma once

#include "pion/torch/one_rule.h"
#include "pion/torch/optimizer.h"
#include "pion/torch/options.h"
#include "pion/torch/route_module.h"
#include "pion/version.h"

#if __has_include("pion/torch/torch_version.h")  // written when pion is installed
#include "pion/torch/torch_version.h"
#endif
