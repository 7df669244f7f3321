// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/roofline.h"

#include <algorithm>

#include "lab/bench/stages.h"
#include "pion/optim/matrix_step.h"

namespace pion::bench {
namespace {

// f32 iterates directly.
double f32_flops(double m, double n, double steps) {
  return steps * (3 * m * m * n + m * m * m);
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
      SpectralMap map = rule_map(rule, shape.rows, shape.cols);
      map.precision = precision;
      const auto heads = static_cast<double>(shape.heads);
      if (precision == Precision::kF32) {
        const auto m = static_cast<double>(std::min(shape.rows, shape.cols));
        const auto n = static_cast<double>(std::max(shape.rows, shape.cols));
        roofline.f32_flops +=
            heads * f32_flops(m, n, static_cast<double>(map.sequence.size()));
      } else {
        const bool units = target == "avx512_bf16" || target.starts_with("amx");
        roofline.bf16_flops += heads * map_work(map, shape.rows, shape.cols, units).all();
      }
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
