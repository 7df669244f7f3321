// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/roofline.h"

#include "lab/bench/stages.h"
#include "pion/optim/matrix_step.h"

namespace pion::bench {
namespace {

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
      const bool units = target == "avx512_bf16" || target.starts_with("amx");
      const double flops = heads * map_work(map, shape.rows, shape.cols, units).all();
      (precision == Precision::kF32 ? roofline.f32_flops : roofline.bf16_flops) += flops;
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
