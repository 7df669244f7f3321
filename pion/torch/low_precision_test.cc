// SPDX-License-Identifier: Apache-2.0
// bf16 and f64 parameters.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "pion/torch/one_rule.h"

namespace pion {
namespace {

torch::Tensor gradient(int step, at::ScalarType type) {
  torch::manual_seed(100 + step);
  return torch::randn({16, 8}).to(torch::kBFloat16).to(type);
}

torch::Tensor start(at::ScalarType type) {
  torch::manual_seed(1);
  return torch::randn({16, 8}).to(torch::kBFloat16).to(type).requires_grad_();
}

template <class Options>
torch::Tensor train(torch::Tensor weight, const Options& options, int steps) {
  OptimizerOf<Options> optimizer({weight}, options);
  for (int step = 0; step < steps; ++step) {
    weight.mutable_grad() = gradient(step, weight.scalar_type());
    optimizer.step();
  }
  return weight.detach();
}

TEST(LowPrecision, TheMasterCopyFollowsTheF32TrajectoryExactly) {
  for (const bool nesterov :
       {true, false}) {  // torch's Muon writes to the momentum without it
    const auto options = MuonOptions(1e-4).nesterov(nesterov).weight_decay(0.1);
    const auto narrow = train(start(torch::kBFloat16), options, 30);
    const auto wide = train(start(torch::kFloat), options, 30);
    EXPECT_TRUE(narrow.equal(wide.to(torch::kBFloat16)));
  }
  const auto narrow = train(start(torch::kBFloat16), AdamWOptions(1e-4), 30);
  EXPECT_TRUE(narrow.equal(
      train(start(torch::kFloat), AdamWOptions(1e-4), 30).to(torch::kBFloat16)));
}

// Each of 50 steps of 2e-5 is far below half a unit of a weight near 1, 2^-9.
TEST(LowPrecision, SmallStepsAreLostOnlyWhenNearestRoundingIsAskedFor) {
  const auto drift = [](LowPrecision mode, at::ScalarType type) {
    torch::Tensor weight = torch::ones({64, 64}, type).requires_grad_();
    Sgd optimizer({weight}, SgdOptions(2e-5).momentum(0).low_precision(mode));
    optimizer.set_seed(7);
    for (int step = 0; step < 50; ++step) {
      weight.mutable_grad() = torch::ones({64, 64}, type);
      optimizer.step();
    }
    return 1.0 - weight.detach().to(torch::kDouble).mean().item<double>();
  };
  EXPECT_EQ(drift(LowPrecision::kNearest, torch::kBFloat16), 0.0);
  // below 1 the unit is 2^-8: the sum of 50 steps, 1e-3, is under half of it
  EXPECT_EQ(drift(LowPrecision::kMasterCopy, torch::kBFloat16), 0.0);
  // mean of 4096 entries: each the sum of 50 roundings with variance under 2^-8 * 2e-5,
  // so 5 standard deviations are 5 sqrt(50 * 7.8e-8 / 4096) = 1.6e-4
  EXPECT_NEAR(drift(LowPrecision::kStochastic, torch::kBFloat16), 1e-3, 1.6e-4);
}

TEST(LowPrecision, AWeightThatSomebodyElseWritesReplacesTheMasterCopy) {
  torch::Tensor weight = torch::ones({4, 4}, torch::kBFloat16).requires_grad_();
  Sgd optimizer({weight}, SgdOptions(0.5).momentum(0));
  weight.mutable_grad() = torch::ones({4, 4}, torch::kBFloat16);
  optimizer.step();
  weight.data().fill_(3);
  optimizer.step();
  EXPECT_TRUE(weight.equal(torch::full({4, 4}, 2.5, torch::kBFloat16)));
}

TEST(LowPrecision, MomentumIsF32AndF64StaysF64) {
  for (const auto& [type, wanted] : {std::pair{torch::kBFloat16, torch::kFloat},
                                     {torch::kFloat, torch::kFloat},
                                     {torch::kDouble, torch::kDouble}}) {
    torch::Tensor weight = start(type);
    Muon optimizer({weight}, MuonOptions(0.1));
    weight.mutable_grad() = gradient(0, type);
    optimizer.step();
    EXPECT_EQ(
        optimizer.state_tensors().at("groups.0.params.0.momentum_buffer").scalar_type(),
        wanted);
  }
}

// 30 steps in f64 and f32: f32 rounds |w| < 4 thrice a step, and directions by at most
// 0.2 sqrt(16) lr times 1e-4 (see torch_judges_test.cc).
TEST(LowPrecision, F64AgreesWithF32) {
  const auto options = MuonOptions(1e-2).precision(Precision::kF32);
  const auto f64 = train(start(torch::kDouble), options, 30);
  const auto f32 = train(start(torch::kFloat), options, 30);
  EXPECT_LE((f64 - f32).abs().max().item<double>(),
            30 * (12 * 0x1p-24 + 0.8 * 1e-2 * 1e-4));
}

TEST(LowPrecision, AMasterCopyOfAParameterThatIsNoBf16AnyMoreIsNamed) {
  torch::Tensor w = start(torch::kBFloat16);
  Muon optimizer({w}, MuonOptions(0.1));
  w.mutable_grad() = gradient(0, torch::kBFloat16);
  optimizer.step();
  w.mutable_grad().reset();
  w.set_data(w.detach().to(torch::kFloat));
  w.mutable_grad() = gradient(1, torch::kFloat);
  try {
    optimizer.step();
    FAIL() << "must throw";
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    EXPECT_TRUE(message.starts_with(
        "step: groups.0.params.0 must stay BFloat16, of which its state keeps a master "
        "copy, got Float; "))
        << message;
  }
}

}  // namespace
}  // namespace pion
