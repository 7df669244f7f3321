// SPDX-License-Identifier: Apache-2.0
// The element-wise kernels of every CPU target against their definitions in double.
#include "pion/kernels/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "pion/bfloat16.h"
#include "tests/random_numbers.h"

namespace pion {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kSizes[] = {0,  1,  3,  4,  5,  7,   8,   9,   15,  16,
                                  17, 31, 33, 63, 64, 100, 255, 257, 1000};

// A gradient in both types and what the rule must make of each entry.
struct Gradient {
  std::vector<float> f32;
  std::vector<std::uint16_t> bf16;
  std::vector<double> meant;
  bool narrow, negated, zero_nonfinite;
  Gradient(std::size_t n, std::uint64_t seed, int variant)
      : f32(gaussian(n, seed)),
        bf16(n),
        meant(n),
        narrow(variant & 1),
        negated(variant & 2),
        zero_nonfinite(variant & 4) {
    for (std::size_t i = 0; i < n; ++i) {
      if (zero_nonfinite && i % 5 == 2) f32[i] = i % 2 ? kNaN : -kInfinity;
      const bfloat16 rounded(f32[i]);
      bf16[i] = rounded.bits;
      const double g = narrow ? static_cast<float>(rounded) : f32[i];
      meant[i] = zero_nonfinite && !std::isfinite(g) ? 0.0 : negated ? -g : g;
    }
  }
  GradientEntries entries(std::size_t first = 0) const {
    return {narrow ? nullptr : f32.data() + first, narrow ? bf16.data() + first : nullptr,
            negated, zero_nonfinite};
  }
};

class Elementwise : public testing::TestWithParam<CpuTarget> {};

TEST_P(Elementwise, AdamWFollowsItsDefinition) {
  constexpr double kHalfUnit = 0x1p-24;  // relative error of one rounding
  for (const std::size_t n : kSizes) {
    for (int variant = 0; variant < 16; ++variant) {
      const Gradient g(n, 1, variant);
      std::vector<float> w = gaussian(n, 2), m = gaussian(n, 3), v = gaussian(n, 4);
      for (float& x : v) x *= x;
      const std::vector<float> w0 = w, m0 = m, v0 = v;
      const AdamWCall call{.n = n,
                           .weight = w.data(),
                           .gradient = g.entries(),
                           .exp_avg = m.data(),
                           .exp_avg_sq = v.data(),
                           .beta1 = 0.875f,
                           .share1 = 0.125f,
                           .beta2 = 0.96f,
                           .share2 = 0.04f,
                           .step_size = 0.01f,
                           .inverse_correction = 3.0f,
                           .eps = 1e-6f,
                           .decay = 0.999f,
                           .moves = (variant & 8) == 0};
      const double squares = adamw(call, GetParam());
      double expected = 0, tolerance = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const double gi = g.meant[i];
        const double md = double{call.beta1} * m0[i] + double{call.share1} * gi;
        const double vd = double{call.beta2} * v0[i] + double{call.share2} * gi * gi;
        const double below = std::sqrt(vd) * call.inverse_correction + call.eps;
        const double u = call.step_size * md / below;
        // three roundings of the terms of m; four of v, whose root halves them; then
        // root, product, sum, step_size m, quotient
        const double m_error =
            3 * kHalfUnit * (call.beta1 * std::abs(m0[i]) + call.share1 * std::abs(gi));
        const double u_error =
            call.step_size * m_error / below + 8 * kHalfUnit * std::abs(u);
        ASSERT_NEAR(m[i], md, m_error) << n << ", " << variant << ", " << i;
        ASSERT_NEAR(v[i], vd, 4 * kHalfUnit * vd);
        const double wd = call.moves ? w0[i] * double{call.decay} - u : w0[i];
        ASSERT_NEAR(w[i], wd, u_error + 2 * kHalfUnit * (std::abs(w0[i]) + std::abs(u)));
        if (!call.moves) {
          ASSERT_EQ(w[i], w0[i]);
        }
        expected += u * u, tolerance += 2.1 * std::abs(u) * u_error;
      }
      ASSERT_NEAR(squares, expected, tolerance) << n << ", " << variant;
    }
  }
}

TEST_P(Elementwise, SgdFollowsItsDefinition) {
  constexpr double kHalfUnit = 0x1p-24;
  for (const std::size_t n : kSizes) {
    for (int form = 0; form < 5; ++form) {
      for (int variant = 0; variant < 16; ++variant) {
        const bool has = form > 0, first = form == 2 || form == 4, nesterov = form > 2;
        const Gradient g(n, 5, variant);
        std::vector<float> w = gaussian(n, 6), b = gaussian(n, 7);
        const std::vector<float> w0 = w, b0 = b;
        const SgdCall call{.n = n,
                           .weight = w.data(),
                           .gradient = g.entries(),
                           .momentum = has ? b.data() : nullptr,
                           .mu = 0.9f,
                           .share = 0.7f,
                           .lr = 0.03f,
                           .decay = 0.99f,
                           .first = first,
                           .nesterov = nesterov,
                           .moves = (variant & 8) == 0};
        const double squares = sgd(call, GetParam());
        double expected = 0, tolerance = 0;
        for (std::size_t i = 0; i < n; ++i) {
          const double gi = g.meant[i];
          const double bd =
              first ? gi : double{call.mu} * b0[i] + double{call.share} * gi;
          const double d = !has ? gi : nesterov ? gi + double{call.mu} * bd : bd;
          const double u = call.lr * d;
          // three roundings of the terms of b, three more for d, one for u
          const double size = std::abs(gi) + std::abs(b0[i]);
          const double u_error = call.lr * 2 * 7 * kHalfUnit * size;
          ASSERT_NEAR(b[i], has ? bd : b0[i], has ? 3 * kHalfUnit * size : 0.0)
              << n << ", " << form;
          const double wd = call.moves ? w0[i] * double{call.decay} - u : w0[i];
          ASSERT_NEAR(w[i], wd, u_error + 2 * kHalfUnit * (std::abs(w0[i]) + std::abs(u)))
              << n << ", " << form << ", " << variant << ", " << i;
          expected += u * u, tolerance += 2.1 * std::abs(u) * u_error;
        }
        ASSERT_NEAR(squares, expected, tolerance) << n << ", " << form << ", " << variant;
      }
    }
  }
}

// An entry's result does not depend on where it lies in the array.
TEST_P(Elementwise, StepsGiveTheSameBitsInPieces) {
  constexpr std::size_t kNumbers = 300;
  for (const std::size_t cut : {1, 5, 16, 100, 299}) {
    const Gradient g(kNumbers, 8, 0);
    std::vector<float> state[2][3];
    for (auto& s : state) {
      for (int k = 0; k < 3; ++k) s[k] = gaussian(kNumbers, 10 + k);
      for (float& x : s[2]) x *= x;
    }
    const auto step = [&](auto& s, std::size_t first, std::size_t n) {
      adamw({n, s[0].data() + first, g.entries(first), s[1].data() + first,
             s[2].data() + first, 0.9f, 0.1f, 0.999f, 0.001f, 1e-3f, 2.0f, 1e-8f, 0.9f,
             true},
            GetParam());
      sgd({n, s[0].data() + first, g.entries(first), s[1].data() + first, 0.9f, 1.0f,
           0.1f, 0.99f, false, true, true},
          GetParam());
    };
    step(state[0], 0, kNumbers);
    step(state[1], 0, cut);
    step(state[1], cut, kNumbers - cut);
    for (int k = 0; k < 3; ++k) EXPECT_EQ(state[0][k], state[1][k]) << cut;
  }
}

TEST_P(Elementwise, GradientSquaresAgreeWithTheirDefinition) {
  for (const std::size_t n : {0, 1, 15, 63, 64, 65, 1000, 8192, 8193, 70000}) {
    for (const float scale : {1.0f, 1e30f, 1e-30f, 0.0f}) {
      for (int variant = 0; variant < 8; ++variant) {
        Gradient g(n, 9, variant);
        double expected = 0;
        for (std::size_t i = 0; i < n; ++i) {
          g.f32[i] *= scale;
          const bfloat16 rounded(g.f32[i]);
          g.bf16[i] = rounded.bits;
          const float entry = g.narrow ? static_cast<float>(rounded) : g.f32[i];
          if (std::isfinite(entry)) expected += double{entry} * entry;
        }
        // up to 32 terms are summed in float, all positive: 2 roundings each
        const double tolerance = 64 * 0x1p-24 * expected;
        ASSERT_NEAR(gradient_squares(g.entries(), n, GetParam()), expected, tolerance)
            << n << ", " << scale << ", " << variant;
      }
    }
  }
}

TEST_P(Elementwise, GradientSquaresAreFiniteIfAndOnlyIfEveryEntryIs) {
  for (const std::size_t n : {1, 17, 64, 257, 2100}) {
    std::vector<float> g = gaussian(n, 11);
    g[n / 2] = std::numeric_limits<float>::max();
    for (float& x : g) x = std::abs(x) > 1 ? 3e38f : x;  // their squares overflow float
    std::vector<std::uint16_t> narrow(n);
    for (std::size_t i = 0; i < n; ++i) narrow[i] = bfloat16(g[i] * 0.5f).bits;
    EXPECT_TRUE(std::isfinite(gradient_squares({g.data()}, n, GetParam())));
    EXPECT_TRUE(std::isfinite(gradient_squares({nullptr, narrow.data()}, n, GetParam())));
    for (std::size_t i = 0; i < n; ++i) {
      for (const float bad : {kNaN, kInfinity, -kInfinity}) {
        const float good = std::exchange(g[i], bad);
        const auto few = std::exchange(narrow[i], bfloat16(bad).bits);
        ASSERT_FALSE(std::isfinite(gradient_squares({g.data()}, n, GetParam()))) << i;
        ASSERT_FALSE(
            std::isfinite(gradient_squares({nullptr, narrow.data()}, n, GetParam())))
            << i;
        g[i] = good, narrow[i] = few;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Elementwise, testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& tested) {
                           return std::string(cpu_target_name(tested.param));
                         });

}  // namespace
}  // namespace pion
