// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/roofline.h"

#include <algorithm>

#include "pion/optim/matrix_step.h"

namespace pion::bench {
namespace {

constexpr double kGramRatio = 1.5;  // n / m from which pion iterates in Gram space

// Floating-point operations of one map.
struct MapFlops {
  double wide = 0;   // products with X
  double gram = 0;   // symmetric m x m products
  double apply = 0;  // Q X
};

MapFlops map_flops(double m, double n, double steps) {
  if (n >= kGramRatio * m) return {m * m * n, (4 * steps - 3) * m * m * m, 2 * m * m * n};
  return {steps * (3 * m * m * n + m * m * m), 0, 0};
}

// Adds the flops of `count` maps to the units that they run on.
void add_map(const MapFlops& map, double count, Precision precision, bool split_is_faster,
             Roofline& roofline) {
  if (precision == Precision::kF32) {
    roofline.f32_flops += count * (map.wide + map.gram + map.apply);
    return;
  }
  roofline.bf16_flops += count * map.wide;
  if (precision == Precision::kFast) {
    roofline.bf16_flops += count * (map.gram + map.apply);
  } else {
    roofline.bf16_flops += count * 2 * map.apply;
    (split_is_faster ? roofline.bf16_flops : roofline.f32_flops) +=
        count * map.gram * (split_is_faster ? 3 : 1);
  }
}

double bytes_per_number(const Rule& rule) {
  if (std::holds_alternative<AdamWRule>(rule)) return 28;
  return std::holds_alternative<SgdRule>(rule) ? 20 : 24;
}

}  // namespace

Roofline step_roofline(const Workload& workload, const Rule& rule, Precision precision,
                       const Peaks& peaks, const std::string& target) {
  Roofline roofline;
  const double bf16 = peaks.bf16_gflops(target), f32 = peaks.f32_gflops;
  if (is_matrix_rule(rule)) {
    for (const ParameterShape& shape : workload.parameters) {
      const SpectralMap map = rule_map(rule, shape.rows, shape.cols);
      const auto m = static_cast<double>(std::min(shape.rows, shape.cols));
      const auto n = static_cast<double>(std::max(shape.rows, shape.cols));
      add_map(map_flops(m, n, static_cast<double>(map.sequence.size())),
              static_cast<double>(shape.heads), precision, bf16 > 3 * f32, roofline);
    }
  }
  const auto entries = static_cast<double>(workload.entries());
  roofline.bytes = entries * bytes_per_number(rule);
  roofline.compute_ms = 1e-6 * (roofline.bf16_flops / bf16 + roofline.f32_flops / f32);
  // weight, gradient, state: what must be held at once
  const double held = entries * (std::holds_alternative<AdamWRule>(rule) ? 16 : 12);
  roofline.memory_ms =
      1e-6 * roofline.bytes / peaks.update_gbs(static_cast<std::int64_t>(held));
  return roofline;
}

}  // namespace pion::bench
