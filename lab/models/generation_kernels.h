// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "lab/models/generation_kernel_call.h"
#include "pion/kernels/cpu_target.h"

namespace pion::lab {

// The fastest up to `target`.
const DecodeKernels& decode_kernels(CpuTarget target = cpu_target());

}  // namespace pion::lab
