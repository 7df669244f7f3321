// SPDX-License-Identifier: Apache-2.0
#include "lab/models/causal_lm_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace pion::lab {
namespace {

struct Shape {
  std::int64_t heads, kv_heads, dim;
};

// Lengths of prompts with those of their answers.
using Families = std::vector<std::vector<std::int64_t>>;

TokenPack pack_of(const Families& families) {
  std::vector<PackedSequence> sequences;
  for (const auto& family : families) {
    const auto prompt = static_cast<std::int64_t>(sequences.size());
    for (std::size_t i = 0; i < family.size(); ++i)
      sequences.push_back(
          {std::vector<std::int64_t>(family[i], 1), i == 0 ? -1 : prompt});
  }
  return pack_tokens(sequences);
}

Rotation rotation_of(const TokenPack& pack, std::int64_t dim) {
  const torch::Tensor frequencies = torch::pow(0.5, torch::arange(dim / 2));
  return make_rotation(pack.positions, frequencies.to(torch::kFloat32), torch::kFloat32);
}

std::vector<torch::Tensor> draw_inputs(const TokenPack& pack, const Shape& shape) {
  const std::int64_t n = pack.tokens.numel();
  return {3 * torch::randn({n, shape.heads, shape.dim}),
          torch::randn({n, shape.kv_heads, shape.dim}),
          torch::randn({n, shape.kv_heads, shape.dim})};
}

// Value, then the gradients of q, k, v for `weights` as the gradient of the value.
template <class Attention>
std::vector<torch::Tensor> value_and_gradients(std::vector<torch::Tensor> inputs,
                                               const torch::Tensor& weights,
                                               const Attention& attention) {
  for (torch::Tensor& x : inputs) x = x.detach().clone().requires_grad_();
  const torch::Tensor out = attention(inputs[0], inputs[1], inputs[2]);
  (out * weights).sum().backward();
  return {out.detach(), inputs[0].grad(), inputs[1].grad(), inputs[2].grad()};
}

class Attention : public testing::TestWithParam<std::pair<Shape, Families>> {};

// Against the definition in double on the same numbers. A score is a sum of dim products
// and a weight has its rounding, scaled by the score's size; a sum over keys adds at most
// their number.
TEST_P(Attention, IsItsDefinition) {
  torch::manual_seed(1);
  const auto& [shape, families] = GetParam();
  const TokenPack pack = pack_of(families);
  const Rotation narrow = rotation_of(pack, shape.dim);
  const Rotation wide = {narrow.cosine.to(torch::kFloat64),
                         narrow.sine.to(torch::kFloat64)};
  std::vector<torch::Tensor> inputs = draw_inputs(pack, shape);
  const torch::Tensor weights = torch::randn(inputs[0].sizes());
  const auto found = value_and_gradients(
      inputs, weights, [&](const auto& q, const auto& k, const auto& v) {
        return packed_attention(q, k, v, narrow, pack);
      });
  for (torch::Tensor& x : inputs) x = x.to(torch::kFloat64);
  const auto expected =
      value_and_gradients(inputs, weights.to(torch::kFloat64),
                          [&](const auto& q, const auto& k, const auto& v) {
                            return packed_attention_definition(q, k, v, wide, pack);
                          });
  std::int64_t longest = 0;
  for (const AttentionBlock& block : pack.blocks) longest = std::max(longest, block.keys);
  const double terms = 16 + static_cast<double>(shape.dim + longest);
  const char* names[] = {"out", "q", "k", "v"};
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double scale = 4 + expected[i].abs().max().item<double>();
    EXPECT_LE((found[i] - expected[i]).abs().max().item<double>(),
              terms * 0x1p-24 * scale)
        << names[i];
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Attention,
    testing::Values(std::pair(Shape{1, 1, 2}, Families{{1}}),
                    std::pair(Shape{4, 2, 32},
                              Families{{9, 20, 23, 0, 1}, {17, 16}, {3}}),
                    std::pair(Shape{6, 2, 10}, Families{{1, 2, 3}, {16, 4}, {31}}),
                    std::pair(Shape{3, 3, 16}, Families{{4}, {5, 11, 12, 13}, {48, 1}}),
                    std::pair(Shape{8, 1, 40}, Families{{15, 15}, {33, 70, 5}}),
                    std::pair(Shape{2, 1, 128}, Families{{200, 312}}),
                    std::pair(Shape{2, 1, 8}, Families{{200, 400}, {3}})));

TEST(PackedAttention, ThreadsAndTargetsAgree) {
  torch::manual_seed(2);
  const Shape shape{4, 2, 24};
  const TokenPack pack = pack_of({{7, 20, 13, 40}, {5, 6}, {30, 2, 2}});
  const Rotation rotation = rotation_of(pack, shape.dim);
  const auto inputs = draw_inputs(pack, shape);
  const torch::Tensor weights = torch::randn(inputs[0].sizes());
  const auto compute = [&] {
    return value_and_gradients(inputs, weights,
                               [&](const auto& q, const auto& k, const auto& v) {
                                 return packed_attention(q, k, v, rotation, pack);
                               });
  };
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const auto expected = compute();
  at::set_num_threads(2);
  const auto found = compute();
  at::set_num_threads(before);
  for (std::size_t i = 0; i < found.size(); ++i)
    EXPECT_TRUE(torch::equal(found[i], expected[i])) << i;

  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  const AttentionInput input = {inputs[0].const_data_ptr<float>(),
                                inputs[1].const_data_ptr<float>(),
                                inputs[2].const_data_ptr<float>(),
                                rotation.cosine.const_data_ptr<float>(),
                                rotation.sine.const_data_ptr<float>(),
                                size(shape.heads),
                                size(shape.kv_heads),
                                size(shape.dim)};
  for (const CpuTarget target : supported_cpu_targets()) {
    const AttentionKernels& kernels = attention_kernels(target);
    torch::Tensor out = torch::empty_like(inputs[0]);
    torch::Tensor sums = torch::empty({inputs[0].size(0), shape.heads});
    for (const AttentionRun& run : pack.plan->runs)
      for (std::size_t head = 0; head < input.kv_heads; ++head) {
        std::vector<float> scratch(kernels.scratch(run, input.dim));
        kernels.forward(input, run, head, scratch.data(), out.mutable_data_ptr<float>(),
                        sums.mutable_data_ptr<float>());
      }
    EXPECT_LE((out - expected[0]).abs().max().item<double>(), 100 * 0x1p-24 * 8)
        << cpu_target_name(target);
  }
}

}  // namespace
}  // namespace pion::lab
