// SPDX-License-Identifier: Apache-2.0
#include "lab/models/causal_lm_fused.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

namespace pion::lab {
namespace {

using Call = std::function<torch::Tensor(const std::vector<torch::Tensor>&)>;

// Value and gradients against the definition in double on the same numbers.
void expect_like_definition(const std::vector<torch::Tensor>& inputs, const Call& fused,
                            const Call& definition, double tolerance) {
  std::vector<torch::Tensor> narrow, wide;
  for (const torch::Tensor& x : inputs) {
    narrow.push_back(x.clone().requires_grad_());
    wide.push_back(x.to(torch::kFloat64).requires_grad_());
  }
  const torch::Tensor found = fused(narrow), expected = definition(wide);
  const auto near = [&](const torch::Tensor& a, const torch::Tensor& b) {
    // terms of size 1 may cancel: a row of one number has almost no gradient
    const double scale = 1 + b.abs().max().item<double>();
    EXPECT_LE((a - b).abs().max().item<double>(), tolerance * scale);
  };
  near(found, expected);
  const torch::Tensor weights = torch::randn(found.sizes());
  (found * weights).sum().backward();
  (expected * weights.to(torch::kFloat64)).sum().backward();
  for (std::size_t i = 0; i < inputs.size(); ++i) near(narrow[i].grad(), wide[i].grad());
}

// Sums over `terms` f32 products, and some roundings around them.
double rounding(double terms) { return (terms + 16) * 0x1p-24; }

TEST(Fused, RmsNorm) {
  torch::manual_seed(1);
  for (const auto& [rows, width] : std::vector<std::pair<int, int>>{
           {1, 1}, {3, 16}, {5, 17}, {300, 24}, {515, 128}}) {
    expect_like_definition(
        {torch::randn({rows, width}), torch::randn({width})},
        [](const auto& x) { return rms_norm(x[0], x[1], 1e-6); },
        [](const auto& x) { return rms_norm_definition(x[0], x[1], 1e-6); },
        rounding(rows + width));
  }
  // as the norm of heads: three dimensions, not contiguous
  expect_like_definition(
      {torch::randn({4, 7, 10}), torch::randn({10})},
      [](const auto& x) { return rms_norm(x[0].transpose(0, 1), x[1], 1e-3); },
      [](const auto& x) { return rms_norm_definition(x[0].transpose(0, 1), x[1], 1e-3); },
      rounding(40));
}

TEST(Fused, Gate) {
  torch::manual_seed(2);
  for (const int n : {1, 15, 16, 33, 40000})
    expect_like_definition(
        {30 * torch::randn({n}), torch::randn({n})},
        [](const auto& x) { return gated(x[0], x[1]); },
        [](const auto& x) { return gated_definition(x[0], x[1]); }, rounding(1));
}

TEST(Fused, Rotation) {
  torch::manual_seed(3);
  for (const int dim : {2, 10, 32, 40}) {
    const torch::Tensor half = torch::randn({301, 1, dim / 2});
    const torch::Tensor angles = torch::cat({half, half}, -1);
    const torch::Tensor cosine = angles.cos(), sine = angles.sin();
    expect_like_definition(
        {torch::randn({301, 3, dim})},
        [&](const auto& x) { return rotated(x[0], cosine, sine); },
        [&](const auto& x) {
          return rotated_definition(x[0], cosine.to(torch::kFloat64),
                                    sine.to(torch::kFloat64));
        },
        rounding(2));
  }
}

TEST(Fused, ThreadsAndTargetsAgree) {
  torch::manual_seed(4);
  const torch::Tensor x = torch::randn({2000, 48}), weights = torch::randn({2000, 48});
  const int before = at::get_num_threads();
  torch::Tensor gain = torch::randn({48}).requires_grad_(), first;
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    gain.mutable_grad().reset();
    (rms_norm(x, gain, 1e-6) * weights).sum().backward();
    if (threads == 1) first = gain.grad().clone();
    EXPECT_TRUE(torch::equal(gain.grad(), first)) << threads << " threads";
  }
  at::set_num_threads(before);
  for (const CpuTarget target : supported_cpu_targets()) {
    torch::Tensor out = torch::empty({2000, 48});
    fused_kernels(target).gate(x.const_data_ptr<float>(), weights.const_data_ptr<float>(),
                               x.numel(), out.mutable_data_ptr<float>());
    EXPECT_LE((out - gated_definition(x, weights)).abs().max().item<double>(),
              rounding(1) * 16)
        << cpu_target_name(target);
  }
}

}  // namespace
}  // namespace pion::lab
