// SPDX-License-Identifier: Apache-2.0
// Heads, fused projections, convolutions and stacks equal separate parameters bit for
// bit.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "pion/torch/one_rule.h"

namespace pion {
namespace {

// Steps `whole` under `options` and, as parameters of their own, the tensors that `cut`
// makes of it; then compares.
void expect_separate(
    at::IntArrayRef shape, const PionOptions& options,
    const std::function<std::vector<torch::Tensor>(const torch::Tensor&)>& cut) {
  torch::manual_seed(4);
  torch::Tensor whole = torch::randn(shape).requires_grad_();
  std::vector<torch::Tensor> parts = cut(whole.detach());
  for (torch::Tensor& part : parts)
    part = part.clone(at::MemoryFormat::Contiguous).requires_grad_();
  const auto plain = PionOptions(options).split_sizes({}).split_heads({1}).head_axis(0);
  Pion together({whole}, options), apart(parts, plain);
  for (int step = 0; step < 3; ++step) {
    whole.mutable_grad() = torch::randn(shape);
    const auto gradients = cut(whole.grad());
    for (std::size_t i = 0; i < parts.size(); ++i) parts[i].mutable_grad() = gradients[i];
    together.step();
    apart.step();
  }
  const auto now = cut(whole.detach());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    EXPECT_TRUE(now[i].reshape(parts[i].sizes()).equal(parts[i])) << "part " << i;
  }
}

const PionOptions kOptions = PionOptions(0.1).cutoff(0.2).weight_decay(0.1);

TEST(Blocks, HeadsOnTheOutputSide) {
  expect_separate({32, 24}, PionOptions(kOptions).heads(4),
                  [](const torch::Tensor& x) { return x.chunk(4, 0); });
}

TEST(Blocks, HeadsOnTheInputSide) {
  expect_separate({24, 32}, PionOptions(kOptions).heads(4).head_axis(1),
                  [](const torch::Tensor& x) { return x.chunk(4, 1); });
}

TEST(Blocks, FusedProjectionsOfUnequalSize) {
  expect_separate({32, 24},
                  PionOptions(kOptions).split_sizes({16, 8, 8}).split_heads({4, 2, 2}),
                  [](const torch::Tensor& x) {
                    auto parts = x.narrow(0, 0, 16).chunk(4, 0);
                    for (const auto& p : x.narrow(0, 16, 16).chunk(4, 0))
                      parts.push_back(p);
                    return parts;
                  });
}

TEST(Blocks, ConvolutionsFoldToOutAndRest) {
  expect_separate({8, 3, 3, 3}, PionOptions(kOptions).fold(Fold::kConvolution),
                  [](const torch::Tensor& x) {
                    return std::vector<torch::Tensor>{x.reshape({8, 27})};
                  });
  expect_separate({8, 3, 5}, PionOptions(kOptions).fold(Fold::kConvolution),
                  [](const torch::Tensor& x) {
                    return std::vector<torch::Tensor>{x.reshape({8, 15})};
                  });
}

TEST(Blocks, StacksAreOneMatrixEach) {
  expect_separate({3, 16, 8}, PionOptions(kOptions).fold(Fold::kStack),
                  [](const torch::Tensor& x) { return x.unbind(0); });
  expect_separate({2, 3, 16, 8}, PionOptions(kOptions).fold(Fold::kStack).heads(2),
                  [](const torch::Tensor& x) { return x.reshape({12, 8, 8}).unbind(0); });
}

TEST(Blocks, AWeightOfMoreDimensionsHasToBeDecided) {
  for (const std::vector<std::int64_t>& shape :
       {std::vector<std::int64_t>{3, 16, 8}, {8, 3, 3, 3}}) {
    const torch::Tensor weight = torch::randn(shape).requires_grad_();
    try {
      Pion({weight}, PionOptions(kOptions));
      ADD_FAILURE() << "taken without a word: " << weight.sizes();
    } catch (const c10::Error& error) {
      const std::string message = error.what_without_backtrace();
      EXPECT_NE(message.find("fold must be chosen"), std::string::npos) << message;
      EXPECT_NE(message.find("Fold::kStack"), std::string::npos) << message;
    }
  }
}

TEST(Blocks, AStackWithANonFiniteEntryIsSkippedAsAWhole) {
  torch::Tensor stack = torch::randn({3, 8, 8}).requires_grad_();
  const torch::Tensor old = stack.detach().clone();
  Pion optimizer({stack}, PionOptions(kOptions).fold(Fold::kStack));
  optimizer.collect_statistics(true);
  stack.mutable_grad() = torch::randn({3, 8, 8});
  stack.mutable_grad()[2][0][0] = INFINITY;
  optimizer.step();
  EXPECT_TRUE(stack.equal(old));
  EXPECT_TRUE(optimizer.statistics().at(0).update.skipped);
}

}  // namespace
}  // namespace pion
