// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/block_load.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "pion/bfloat16.h"
#include "tests/random_matrix.h"

namespace pion {
namespace {

constexpr float kMu = 0.95f, kShare = 0.05f, kScale = 0x1p-3f;

// A matrix inside of a larger one, whose other entries must stay as they are.
struct Framed {
  std::int64_t rows, cols, stride;
  std::vector<float> data;
  Framed(std::int64_t r, std::int64_t c, std::uint64_t seed)
      : rows(r),
        cols(c),
        stride(c + 5),
        data(gaussian<float>(static_cast<std::size_t>(r * stride), seed)) {}
  float& operator()(std::int64_t i, std::int64_t j) { return data[i * stride + j]; }
};

struct LoadedBlock {
  Framed momentum, x, transposed;
  std::uint32_t largest;
};

// `form`: 0 no momentum, 1 plain, 2 Nesterov, 3 Nesterov without moving it.
BlockLoad call_of(Framed& gradient, int form, LoadedBlock& to) {
  return {.gradient = gradient.data.data(),
          .narrow_gradient = nullptr,
          .gradient_stride = static_cast<std::size_t>(gradient.stride),
          .momentum = form == 0 ? nullptr : to.momentum.data.data(),
          .momentum_stride = static_cast<std::size_t>(to.momentum.stride),
          .update_momentum = form != 3,
          .mu = kMu,
          .share = kShare,
          .nesterov = form >= 2,
          .scale = kScale,
          .rows = static_cast<std::size_t>(gradient.rows),
          .cols = static_cast<std::size_t>(gradient.cols),
          .x = to.x.data.data(),
          .x_stride = static_cast<std::size_t>(to.x.stride),
          .transposed = to.transposed.data.data(),
          .transposed_stride = static_cast<std::size_t>(to.transposed.stride)};
}

LoadedBlock empty(std::int64_t rows, std::int64_t cols) {
  return {Framed(rows, cols, 2), Framed(rows, cols, 3), Framed(cols, rows, 4), 0};
}

LoadedBlock definition(Framed& gradient, int form) {
  LoadedBlock to = empty(gradient.rows, gradient.cols);
  float largest = 0;
  const auto average = [](float m, float g) {
    const float a = kMu * m, b = kShare * g;
    return a + b;
  };
  for (std::int64_t i = 0; i < gradient.rows; ++i) {
    for (std::int64_t j = 0; j < gradient.cols; ++j) {
      float d = gradient(i, j);
      if (form != 0) {
        float& m = to.momentum(i, j);
        if (form != 3) m = average(m, gradient(i, j));
        d = form >= 2 ? average(m, gradient(i, j)) : m;
      }
      largest = std::max(largest, std::abs(d));
      to.x(i, j) = to.transposed(j, i) = kScale * d;
    }
  }
  to.largest = std::bit_cast<std::uint32_t>(largest);
  return to;
}

class BlockLoads : public testing::TestWithParam<CpuTarget> {};

TEST_P(BlockLoads, AreTheDefinitionToTheBit) {
  for (const auto& [rows, cols] : std::vector<std::pair<int, int>>{
           {1, 1}, {3, 4}, {4, 7}, {8, 16}, {9, 33}, {33, 31}, {2, 1100}, {70, 64}}) {
    for (int form = 0; form < 4; ++form) {
      SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(cols) + ", form " +
                   std::to_string(form));
      Framed gradient(rows, cols, 1);
      LoadedBlock expected = definition(gradient, form), got = empty(rows, cols);
      got.largest = load_block(call_of(gradient, form, got), GetParam());
      EXPECT_EQ(got.largest, expected.largest);
      EXPECT_EQ(got.momentum.data, expected.momentum.data);
      EXPECT_EQ(got.x.data, expected.x.data);
      EXPECT_EQ(got.transposed.data, expected.transposed.data);

      // bf16 gradients are those floats
      std::vector<std::uint16_t> narrow;
      for (float& g : gradient.data) {
        narrow.push_back(bfloat16(g).bits);
        g = bfloat16(g);
      }
      expected = definition(gradient, form), got = empty(rows, cols);
      BlockLoad call = call_of(gradient, form, got);
      call.gradient = nullptr, call.narrow_gradient = narrow.data();
      call.transposed = nullptr;
      EXPECT_EQ(load_block(call, GetParam()), expected.largest);
      EXPECT_EQ(got.momentum.data, expected.momentum.data);
      EXPECT_EQ(got.x.data, expected.x.data);
      EXPECT_EQ(got.transposed.data, empty(rows, cols).transposed.data);
    }
  }
}

TEST_P(BlockLoads, SeeEveryNonFiniteEntry) {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    for (std::int64_t at = 0; at < 3 * 21; ++at) {
      Framed gradient(3, 21, 1);
      gradient(at / 21, at % 21) = bad;
      LoadedBlock got = empty(3, 21);
      EXPECT_GE(load_block(call_of(gradient, 1, got), GetParam()), 0x7f800000u);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, BlockLoads, testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& tested) {
                           return std::string(cpu_target_name(tested.param));
                         });

}  // namespace
}  // namespace pion
