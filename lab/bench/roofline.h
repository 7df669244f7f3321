// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "lab/bench/machine.h"
#include "lab/bench/workload.h"

namespace pion::bench {

// The least time that a step can take on a machine of these peaks.
//
// A map of K steps on a block whose smaller side is m and larger one n is counted as pion
// runs it. A product of two symmetric matrices that commute, and X X^T, cost half of what
// a general product does; one with split operands costs as often as it is multiplied
// (TilePolicy).
//
//   n >= 1.5 m   Gram space: X X^T (m^2 n), 4 K - 3 symmetric m x m products (m^3 each),
//                Q X (2 m^2 n)
//   else, f32    K times X X^T (m^2 n), A^2 (m^3) and P X (2 m^2 n)
//
// Bytes of a step are 24 per number: gradient read (4), momentum and weight read and
// written (8 each), bf16 X written and read (4). AdamW has 28, SGD with momentum 20.
struct Roofline {
  double bf16_flops = 0, f32_flops = 0;
  double bytes = 0;
  double compute_ms = 0, memory_ms = 0;

  double bound_ms() const { return compute_ms > memory_ms ? compute_ms : memory_ms; }
  const char* bound() const { return compute_ms > memory_ms ? "flops" : "bytes"; }
};

Roofline step_roofline(const Workload& workload, const Rule& rule, Precision precision,
                       const Peaks& peaks, const std::string& target);

}  // namespace pion::bench
