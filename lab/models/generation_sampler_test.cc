// SPDX-License-Identifier: Apache-2.0
#include "lab/models/generation_sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace pion::lab {
namespace {

// logits with ties: 2.0 twice, and a third value equal to the third largest
const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 2.0f, 1.25f, 1.25f, -30.0f};

// The definition, in double: temperature, then top-k with ties, then top-p.
std::vector<double> reference(double temperature, std::size_t top_k, double top_p) {
  std::vector<std::size_t> order(kLogits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [](auto a, auto b) { return kLogits[a] > kLogits[b]; });
  std::size_t count = order.size();
  if (top_k > 0 && top_k < count) {
    count = top_k;
    while (count < order.size() && kLogits[order[count]] == kLogits[order[top_k - 1]])
      ++count;
  }
  std::vector<double> p(kLogits.size(), 0.0);
  double total = 0, sum = 0;
  for (std::size_t i = 0; i < count; ++i)
    total += std::exp(kLogits[order[i]] / temperature);
  std::size_t kept = 0;
  while (kept < count && sum < top_p * total)
    sum += std::exp(kLogits[order[kept++]] / temperature);
  for (std::size_t i = 0; i < kept; ++i)
    p[order[i]] = std::exp(kLogits[order[i]] / temperature) / sum;
  return p;
}

struct Case {
  double temperature;
  std::int64_t top_k;
  double top_p;
};

class Sampler : public testing::TestWithParam<Case> {};

TEST_P(Sampler, FollowsTheDistributionOverAGridOfNumbers) {
  const Case& c = GetParam();
  const std::vector<double> expected = reference(c.temperature, c.top_k, c.top_p);
  TokenSampler sampler(c.temperature, c.top_k, c.top_p);
  constexpr int kGrid = 20000;
  std::vector<double> found(kLogits.size(), 0.0);
  for (int i = 0; i < kGrid; ++i) {
    TokenChoice choice;
    ASSERT_TRUE(sampler.choose(kLogits, (i + 0.5) / kGrid, choice));
    found[choice.token] += 1.0 / kGrid;
    // exp of an argument of at most 32, rounded to 2^-24, and its sum
    ASSERT_NEAR(choice.logprob, std::log(expected[choice.token]), 40 * 0x1p-24)
        << choice.token;
  }
  // an interval of length p holds p * kGrid points of the grid, give or take one
  for (std::size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], 1.5 / kGrid) << "token " << i;
}

INSTANTIATE_TEST_SUITE_P(All, Sampler,
                         testing::Values(Case{1.0, 0, 1.0}, Case{0.5, 0, 1.0},
                                         Case{2.0, 0, 1.0}, Case{1.0, 1, 1.0},
                                         Case{1.0, 2, 1.0}, Case{1.0, 3, 1.0},
                                         Case{1.0, 100, 1.0}, Case{1.0, 0, 0.5},
                                         Case{1.0, 0, 0.75}, Case{0.7, 0, 1e-9},
                                         Case{1.5, 4, 0.8}));

TEST(Sampler, GreedyTakesTheSmallestOfEqualTokensAndReportsTemperatureOne) {
  TokenSampler sampler(0, 0, 1);
  TokenChoice choice;
  ASSERT_TRUE(sampler.choose(kLogits, 0.999, choice));
  EXPECT_EQ(choice.token, 1);
  EXPECT_NEAR(choice.logprob, std::log(reference(1, 0, 1)[1]), 40 * 0x1p-24);
}

TEST(Sampler, SeesAnythingThatIsNotFinite) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()})
    for (const std::size_t at : {0, 3, 17, 39}) {
      std::vector<float> logits(40, 1.0f);
      logits[at] = bad;
      TokenChoice choice;
      EXPECT_FALSE(TokenSampler(1, 0, 1).choose(logits, 0.5, choice))
          << bad << " at " << at;
    }
}

}  // namespace
}  // namespace pion::lab
