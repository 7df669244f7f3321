// SPDX-License-Identifier: Apache-2.0
#include "lab/models/generation_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace pion::lab {
namespace {

std::vector<float> gaussian(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& value : x) value = normal(random);
  return x;
}

class Kernels : public testing::TestWithParam<CpuTarget> {
 protected:
  const DecodeKernels& kernels() const { return decode_kernels(GetParam()); }
};

TEST_P(Kernels, NormAddsAndNormalizes) {
  for (const std::size_t width : {1, 15, 16, 17, 48, 100}) {
    const std::vector<float> start = gaussian(3 * width, 1),
                             delta = gaussian(3 * width, 2), gain = gaussian(width, 3);
    for (const bool adds : {false, true}) {
      std::vector<float> x = start, out(3 * width);
      kernels().add_rms_norm(x.data(), adds ? delta.data() : nullptr, gain.data(), 1e-3f,
                             3, width, false, out.data());
      for (std::size_t row = 0; row < 3; ++row) {
        double squares = 0;
        for (std::size_t i = row * width; i < (row + 1) * width; ++i) {
          const float sum = adds ? start[i] + delta[i] : start[i];
          EXPECT_EQ(x[i], sum);
          squares += double{sum} * sum;
        }
        const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-3);
        for (std::size_t i = 0; i < width; ++i) {
          const double expected = x[row * width + i] * scale * gain[i];
          // width / 16 + 8 roundings of the sum, 4 of the rest
          EXPECT_NEAR(out[row * width + i], expected,
                      (width / 16.0 + 12) * 0x1p-24 * std::abs(expected));
        }
      }
    }
  }
}

TEST_P(Kernels, GateIsSiluTimesUp) {
  for (const std::size_t width : {1, 16, 37}) {
    std::vector<float> gate_up = gaussian(4 * width, 4), out(2 * width);
    for (std::size_t i = 0; i < width; ++i) gate_up[i] *= 40;  // saturates both ways
    kernels().gate(gate_up.data(), 2, width, false, out.data());
    for (std::size_t row = 0; row < 2; ++row)
      for (std::size_t i = 0; i < width; ++i) {
        const double g = gate_up[row * 2 * width + i];
        const double expected =
            g / (1 + std::exp(-g)) * gate_up[row * 2 * width + width + i];
        // 2 ulp of exp, 4 roundings; below exp(-87) the kernel has 0
        EXPECT_NEAR(out[row * width + i], expected,
                    8 * 0x1p-24 * std::abs(expected) + 1e-35);
      }
  }
}

TEST_P(Kernels, ExponentialsAndTheirSum) {
  for (const std::size_t n : {1, 15, 16, 33, 1024, 1031, 5000}) {
    std::vector<float> logits = gaussian(n, 5), out(n);
    for (float& x : logits) x *= 20;
    const float top = *std::max_element(logits.begin(), logits.end());
    EXPECT_EQ(kernels().highest(logits.data(), n), top) << n;
    const double total = kernels().exponentials(logits.data(), n, top, 0.7f, out.data());
    double expected_total = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double expected = std::exp(static_cast<double>((logits[i] - top) * 0.7f));
      EXPECT_NEAR(out[i], expected, 3 * 0x1p-23 * expected + 1e-37) << logits[i] - top;
      expected_total += expected;
    }
    // 64 + 4 roundings within a block
    EXPECT_NEAR(total, expected_total, 74 * 0x1p-24 * expected_total);
  }
}

TEST_P(Kernels, HighestShowsWhatIsNotFinite) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()})
    for (const std::size_t at : {0, 15, 16, 20}) {
      std::vector<float> x(21, 1.0f);
      x[at] = bad;
      EXPECT_FALSE(std::isfinite(kernels().highest(x.data(), x.size()))) << at;
    }
}

TEST_P(Kernels, RoundingToBf16IsToNearestEven) {
  // gain 1 on a row whose root mean square is 1: out is x, rounded
  const float values[] = {1.0f, 1.00390625f /* tie to even: 1 */,
                          1.01171875f /* tie: up */, -1.004f /* above the tie */};
  const float expected[] = {1.0f, 1.0f, 1.015625f, -1.0078125f};
  std::vector<float> x(4, 0.0f), gain(4, 0.0f), out(4), delta(values, values + 4);
  kernels().add_rms_norm(x.data(), delta.data(), gain.data(), 1e-6f, 1, 4, true,
                         out.data());
  for (int i = 0; i < 4; ++i) EXPECT_EQ(x[i], expected[i]) << values[i];
}

// Query and key placed, then attention over two segments, against the definition in
// double.
TEST_P(Kernels, AttentionFollowsItsDefinition) {
  for (const DecodeShape& shape :
       {DecodeShape{4, 2, 32}, DecodeShape{6, 2, 10}, DecodeShape{14, 2, 64},
        DecodeShape{1, 1, 2}, DecodeShape{7, 1, 24}})
    for (const std::size_t second : {1, 2, 15, 16, 17, 40}) {
      const std::size_t dim = shape.head_dim, first = 19;
      const std::size_t width = (shape.heads + 2 * shape.kv_heads) * dim;
      const std::size_t capacities[] = {32, 48}, counts[] = {first, second};
      std::vector<std::vector<float>> keys, values, tokens;
      std::vector<float> last;
      KvSegment segments[2];
      const std::vector<float> gain = gaussian(dim, 7);
      for (int s = 0; s < 2; ++s) {
        keys.emplace_back(shape.kv_heads * capacities[s] * dim, 0.0f);
        values.emplace_back(shape.kv_heads * capacities[s] * shape.value_stride(), 0.0f);
      }
      for (int s = 0; s < 2; ++s) {
        const KvView view{keys[s].data(), values[s].data(), capacities[s]};
        segments[s] = {view, counts[s]};
        for (std::size_t slot = 0; slot < counts[s]; ++slot) {
          std::vector<float> qkv = gaussian(width, 100 * s + slot), c(dim / 2),
                             sine(dim / 2);
          for (std::size_t i = 0; i < dim / 2; ++i) {
            c[i] = std::cos(0.1f * (slot + 3 * s) * i);
            sine[i] = std::sin(0.1f * (slot + 3 * s) * i);
          }
          std::vector<float> expected = qkv;  // normalized and rotated in double
          for (std::size_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
            float* x = expected.data() + head * dim;
            double squares = 0;
            for (std::size_t i = 0; i < dim; ++i) squares += double{x[i]} * x[i];
            const double scale = 1 / std::sqrt(squares / dim + 1e-6);
            for (std::size_t i = 0; i < dim / 2; ++i) {
              const double a = x[i] * scale * gain[i];
              const double b = x[i + dim / 2] * scale * gain[i + dim / 2];
              x[i] = static_cast<float>(a * c[i] - b * sine[i]);
              x[i + dim / 2] = static_cast<float>(b * c[i] + a * sine[i]);
            }
          }
          kernels().place(shape, {gain.data(), gain.data(), 1e-6f, c.data(), sine.data()},
                          qkv.data(), false, view, slot);
          for (std::size_t i = 0; i < shape.heads * dim; ++i)
            ASSERT_NEAR(qkv[i], expected[i], 1e-5) << i;
          tokens.push_back(expected);
          last = qkv;
        }
      }
      std::vector<float> out(shape.heads * dim);
      std::vector<float> scratch(shape.heads / shape.kv_heads * (32 + 48));
      kernels().attend(shape, last.data(), segments, 2, false, scratch.data(),
                       out.data());
      const std::vector<float>& query = tokens.back();
      for (std::size_t head = 0; head < shape.heads; ++head) {
        const std::size_t kv = head / (shape.heads / shape.kv_heads);
        std::vector<double> mixed(dim, 0.0);
        double total = 0;
        for (const std::vector<float>& token : tokens) {
          double score = 0;
          for (std::size_t d = 0; d < dim; ++d)
            score += double{query[head * dim + d]} * token[(shape.heads + kv) * dim + d];
          const double weight = std::exp(score / std::sqrt(dim));
          total += weight;
          for (std::size_t d = 0; d < dim; ++d)
            mixed[d] += weight * token[(shape.heads + shape.kv_heads + kv) * dim + d];
        }
        // scores of size 10 are off by 1e-6 each, so are weights, relatively
        for (std::size_t d = 0; d < dim; ++d)
          EXPECT_NEAR(out[head * dim + d], mixed[d] / total, 2e-5)
              << shape.heads << " heads of " << dim << ", second " << second;
      }
    }
}

INSTANTIATE_TEST_SUITE_P(AllTargets, Kernels, testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& info) {
                           return std::string(cpu_target_name(info.param));
                         });

}  // namespace
}  // namespace pion::lab
