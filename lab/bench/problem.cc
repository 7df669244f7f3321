// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/problem.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>

namespace pion::bench {
namespace {

at::Tensor power_law_blocks(const ParameterShape& shape, at::Generator random) {
  constexpr std::int64_t kDirections = 32;
  constexpr double kNoiseNorm = 0.3;
  const double rows = static_cast<double>(shape.rows),
               cols = static_cast<double>(shape.cols);
  const std::int64_t rank = std::min({kDirections, shape.rows, shape.cols});
  const at::Tensor left =
      at::randn({shape.heads, shape.rows, rank}, random).div_(std::sqrt(rows));
  const at::Tensor right =
      at::randn({shape.heads, rank, shape.cols}, random).div_(std::sqrt(cols));
  const at::Tensor sizes = at::arange(1, rank + 1, at::kFloat).reciprocal_();
  const at::Tensor noise = at::randn({shape.heads, shape.rows, shape.cols}, random)
                               .mul_(kNoiseNorm / std::sqrt(rows * cols));
  return at::bmm(left * sizes, right).add_(noise);
}

}  // namespace

Problem make_problem(const Workload& workload, const Rule& rule, Spectrum spectrum,
                     std::uint64_t seed) {
  Problem problem{workload, rule, {}, {}};
  at::Generator random = at::detail::createCPUGenerator(seed);
  for (const ParameterShape& shape : workload.parameters) {
    const std::vector<std::int64_t> sizes = {shape.all_rows(), shape.all_cols()};
    problem.weights.push_back(at::randn(sizes, random).mul_(0.02));
    problem.gradients.push_back(
        spectrum == Spectrum::kFlat
            ? at::randn(sizes, random)
            : join_blocks(power_law_blocks(shape, random), shape).contiguous());
  }
  return problem;
}

at::Tensor cut_in_blocks(const at::Tensor& whole, const ParameterShape& shape) {
  if (shape.axis == 0) return whole.view({shape.heads, shape.rows, shape.cols});
  return whole.view({shape.rows, shape.heads, shape.cols}).permute({1, 0, 2});
}

at::Tensor join_blocks(const at::Tensor& blocks, const ParameterShape& shape) {
  const at::Tensor ordered = shape.axis == 0 ? blocks : blocks.permute({1, 0, 2});
  return ordered.reshape({shape.all_rows(), shape.all_cols()});
}

}  // namespace pion::bench
