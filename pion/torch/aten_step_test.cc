// SPDX-License-Identifier: Apache-2.0
// The step of other devices, run on CPU tensors, against the CPU's.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "pion/torch/aten_rounding.h"
#include "pion/torch/one_rule.h"

namespace pion {
namespace {

struct Outcome {
  torch::Tensor weight;
  std::vector<ParameterStatistics> statistics;
};

template <class Options>
Outcome train(bool generic, const Options& options, at::IntArrayRef shape,
              at::ScalarType type, bool spoil = false) {
  torch::manual_seed(1);
  torch::Tensor weight = torch::randn(shape).to(type).requires_grad_();
  OptimizerOf<Options> optimizer({weight}, options);
  optimizer.force_device_generic(generic);
  optimizer.collect_statistics(true);
  for (int step = 0; step < 5; ++step) {
    torch::manual_seed(step + 10);
    weight.mutable_grad() = torch::randn(shape).to(type);
    if (spoil && step == 2) weight.mutable_grad().flatten()[1] = NAN;
    optimizer.step();
  }
  return {weight.detach().clone(), optimizer.statistics()};
}

// In f64 both paths are exact but for rounding, amplified by the maps' slopes (below 1e6
// for five steps) over 5 steps: 5 * 1e6 * 2^-53 = 6e-10 on updates of order 1.
constexpr double kTolerance = 1e-9;

template <class Options>
void expect_same(const Options& options, at::IntArrayRef shape, bool spoil = false) {
  const Outcome generic = train(true, options, shape, torch::kDouble, spoil);
  const Outcome cpu = train(false, options, shape, torch::kDouble, spoil);
  EXPECT_LE((generic.weight - cpu.weight).abs().max().item<double>(), kTolerance);
  ASSERT_EQ(generic.statistics.size(), 1u);
  const UpdateStatistics& a = generic.statistics[0].update;
  const UpdateStatistics& b = cpu.statistics[0].update;
  EXPECT_EQ(a.skipped, b.skipped);
  EXPECT_NEAR(a.gradient_norm, b.gradient_norm, kTolerance * b.gradient_norm);
  EXPECT_NEAR(a.update_rms, b.update_rms, kTolerance);
  EXPECT_NEAR(a.directions_passed, b.directions_passed, 1e-7);
  EXPECT_EQ(a.directions, b.directions);
  EXPECT_NEAR(a.sigma_max, b.sigma_max, 0.003 * b.sigma_max);  // see aten_relative_sigma
  EXPECT_NEAR(a.stable_rank, b.stable_rank, 0.006 * b.stable_rank);
  EXPECT_NEAR(a.energy_kept, b.energy_kept, 1e-7);
  EXPECT_NEAR(a.head_spread, b.head_spread, 1e-7);
  EXPECT_NEAR(a.half_pass, b.half_pass, 1e-12);
}

TEST(AtenStep, MatrixRulesAgree) {
  for (const auto& shape :
       std::vector<std::vector<std::int64_t>>{{12, 8}, {8, 12}, {16, 16}}) {
    expect_same(PionOptions(0.1).cutoff(0.3).weight_decay(0.1), shape);
    expect_same(PionOptions(0.1).promotion_steps(3).nesterov(true), shape);
    expect_same(MuonOptions(0.1).coefficients("polar_express").weight_decay(0.1), shape);
    expect_same(LowRankMuonOptions(0.1).rank(3), shape);
    expect_same(LowPassMuonOptions(0.1).cutoff(0.4), shape);
    expect_same(PionOptions(0.1).maximize(true), shape);
  }
}

TEST(AtenStep, ScalesAgree) {
  for (const Scale scale : {Scale::kMatchRmsAdamW, Scale::kOriginal, Scale::kSpectral,
                            Scale::kOfficial, Scale::kUnitRms}) {
    expect_same(MuonOptions(0.1).scale(scale), {12, 8});
  }
  expect_same(MuonOptions(0.1).scale(Scale::kUnitRms).scale_factor(0.3).heads(2),
              {12, 8});
  auto stored_in_out = MuonOptions(0.1).scale(Scale::kOriginal);
  stored_in_out.set_layout({.transposed = true});
  expect_same(stored_in_out, {8, 12});
}

TEST(AtenStep, BlocksAgree) {
  expect_same(PionOptions(0.1).heads(4), {16, 12});
  expect_same(PionOptions(0.1).heads(4).head_axis(1), {12, 16});
  expect_same(PionOptions(0.1).split_sizes({8, 4, 4}).split_heads({4, 2, 1}), {16, 12});
  expect_same(PionOptions(0.1).fold(Fold::kStack).heads(2), {3, 8, 10});
  expect_same(PionOptions(0.1).fold(Fold::kConvolution), {8, 3, 3, 3});
  auto stored_in_out = MuonOptions(0.1).scale(Scale::kSpectral).fold(Fold::kStack);
  stored_in_out.set_layout({.transposed = true});
  expect_same(stored_in_out, {3, 8, 12});
}

TEST(AtenStep, ElementwiseRulesAgree) {
  expect_same(AdamWOptions(0.1).weight_decay(0.1), {7});
  expect_same(AdamWOptions(0.1).maximize(true), {3, 4});
  expect_same(SgdOptions(0.1).weight_decay(0.1), {7});
  expect_same(SgdOptions(0.1).nesterov(true), {3, 4});
  expect_same(SgdOptions(0.1).momentum(0), {3, 4});
}

TEST(AtenStep, NonFinitePoliciesAgree) {
  for (const NonFinite policy : {NonFinite::kSkip, NonFinite::kZero}) {
    expect_same(MuonOptions(0.1).nonfinite(policy), {12, 8}, /*spoil=*/true);
    expect_same(LowRankMuonOptions(0.1).rank(2).nonfinite(policy), {12, 8},
                /*spoil=*/true);
    expect_same(AdamWOptions(0.1).nonfinite(policy), {7}, /*spoil=*/true);
    expect_same(SgdOptions(0.1).nonfinite(policy), {7}, /*spoil=*/true);
  }
  EXPECT_THROW(train(true, MuonOptions(0.1).nonfinite(NonFinite::kRaise), {4, 4},
                     torch::kFloat, true),
               c10::Error);
}

// The estimate of sigma_1 is at most ln 8 / 1024 / 2 = 1.1e-3 too small here and
// exact there. That moves f(s) by s f'(s) 1.1e-3, and s f'(s) < 8 for this map; O is
// multiplied by lr s = 0.1 * 0.2 sqrt(12), in each of 5 steps.
TEST(AtenStep, SpectralNormalizationAgreesAsFarAsTheEstimateDoes) {
  const auto options =
      PionOptions(0.1).cutoff(0.3).normalization(Normalization::kSpectral);
  const auto generic = train(true, options, {12, 8}, torch::kDouble).weight;
  const auto cpu = train(false, options, {12, 8}, torch::kDouble).weight;
  EXPECT_LE((generic - cpu).abs().max().item<double>(),
            5 * 8 * 1.1e-3 * 0.1 * 0.2 * std::sqrt(12.0));
}

TEST(AtenStep, Bfloat16ModesAgree) {
  for (const LowPrecision mode :
       {LowPrecision::kMasterCopy, LowPrecision::kStochastic, LowPrecision::kNearest}) {
    const auto options = SgdOptions(0.1).low_precision(mode);
    // SGD's f32 results differ by an ulp at most (fused multiply-add), the bf16 by one in
    // a few
    const auto generic = train(true, options, {64, 64}, torch::kBFloat16).weight;
    const auto cpu = train(false, options, {64, 64}, torch::kBFloat16).weight;
    const auto differing = (generic != cpu).sum().item<std::int64_t>();
    EXPECT_LE(differing, 4096 / 100) << static_cast<int>(mode);
  }
}

TEST(AtenStep, StochasticRoundingHasTheBitsOfTheCpu) {
  torch::manual_seed(3);
  const torch::Tensor x =
      torch::cat({torch::randn({1000}) * 1e3, torch::tensor({INFINITY, -INFINITY})});
  const torch::Tensor ours = torch::empty({1, 1002}, torch::kBFloat16);
  aten_round_stochastically(x.view({1, -1}), ours, std::vector<std::uint64_t>{42});
  torch::Tensor theirs = torch::empty({1002}, torch::kBFloat16);
  round_stochastically({x.data_ptr<float>(), 1002},
                       {static_cast<bfloat16*>(theirs.data_ptr()), 1002}, 42);
  EXPECT_TRUE(ours[0].equal(theirs));
}

}  // namespace
}  // namespace pion
