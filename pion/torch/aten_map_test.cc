// SPDX-License-Identifier: Apache-2.0
// Errors of maps in 16-bit products against the same polynomials in f64, next to those of
// direct bf16 code, which is torch.optim.Muon's.
#include "pion/torch/aten_map.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <tuple>

#include "pion/torch/aten_batch.h"
#include "pion/torch/aten_product.h"

namespace pion {
namespace {

SpectralMap polynomial(QuinticSequence sequence, double margin, Precision precision) {
  SpectralMap map;
  map.sequence = std::move(sequence);
  map.norm_margin = margin;
  map.precision = precision;
  return map;
}

struct NamedMap {
  std::string name;
  QuinticSequence sequence;
  double margin;
};

std::vector<NamedMap> maps() {
  return {{"muon", muon_sequence("classic", 5), 1.0},
          {"pion", high_pass_sequence(2, 5), 1.0},
          {"polar_express", muon_sequence("polar_express", 5),
           muon_norm_margin("polar_express")},
          {"cans", muon_sequence("cans", 5), muon_norm_margin("cans")}};
}

constexpr const char* kSpectra[] = {"gaussian", "1/i", "seven decades", "two and a tail"};

at::Tensor of_spectrum(int which, std::int64_t rows, std::int64_t cols) {
  at::manual_seed(17 + which);
  const auto f64 = at::TensorOptions(at::kDouble);
  const at::Tensor x = at::randn({rows, cols}, f64);
  if (which == 0) return x;
  const std::int64_t m = std::min(rows, cols);
  const at::Tensor index = at::arange(m, f64);
  at::Tensor s = 1 / (index + 1);
  if (which == 2) s = at::pow(10.0, -7 * index / static_cast<double>(m - 1));
  if (which == 3) {
    s = at::pow(10.0, -4 - 3 * index / static_cast<double>(m - 1));
    s.narrow(0, 0, 2).copy_(at::tensor({1.0, 0.7}, f64));
  }
  const auto [u, r] = at::linalg_qr(at::randn({rows, m}, f64));
  const auto [v, t] = at::linalg_qr(at::randn({cols, m}, f64));
  return (u * s).mm(v.t());
}

// X <- a X + (b A + c A^2) X, X and every product rounded by `round`; x is (m, n), m <=
// n.
template <class Round>
at::Tensor iterated(const NamedMap& map, const at::Tensor& x, at::ScalarType sums,
                    const Round& round) {
  at::Tensor y = round((x / (x.norm() * map.margin)).to(sums));
  for (const Quintic& p : map.sequence) {
    const at::Tensor a = round(y.mm(y.t()));
    y = round(p.a * y + round(p.b * a + p.c * a.mm(a)).mm(y));
  }
  return y.to(at::kDouble);
}

double error(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got.to(at::kDouble) - wanted).norm() / wanted.norm()).item<double>();
}

struct Errors {
  double direct, fast, accurate, f32;
};

// `all`: those of the other precisions too.
Errors errors_of(const NamedMap& map, const at::Tensor& x, bool all) {
  const bool tall = x.size(0) > x.size(1);
  const at::Tensor wide = tall ? x.t() : x;
  const at::Tensor wanted =
      iterated(map, wide, at::kDouble, [](const at::Tensor& y) { return y; });
  const at::Tensor direct = iterated(map, wide, at::kFloat, [](const at::Tensor& y) {
    return y.to(at::kBFloat16).to(at::kFloat);
  });
  const auto of = [&](Precision precision) {
    const at::Tensor got =
        aten_spectral_map(polynomial(map.sequence, map.margin, precision),
                          x.to(at::kFloat).unsqueeze(0))[0];
    return error(tall ? got.t() : got, wanted);
  };
  return {error(direct, wanted), of(Precision::kFast), all ? of(Precision::kAccurate) : 0,
          all ? of(Precision::kF32) : 0};
}

// PION_TEST_TABLE=1 prints what docs/cpp.md quotes.
TEST(AtenMap, IsNeverFurtherOffThanDirectBf16) {
  for (const auto& [rows, cols] :
       {std::pair{128, 1024}, {256, 1024}, {384, 384}, {300, 128}}) {
    for (int which = 0; which < 4; ++which) {
      const at::Tensor x = of_spectrum(which, rows, cols);
      for (const NamedMap& map : maps()) {
        const bool small = std::min(rows, cols) == 128;
        const Errors e = errors_of(map, x, small);
        const std::string what = map.name + ", " + kSpectra[which] + ", " +
                                 std::to_string(rows) + " x " + std::to_string(cols);
        EXPECT_LE(e.fast, e.direct) << what;
        // between cases of one kind they vary by a tenth
        EXPECT_LE(e.accurate, 1.1 * e.fast) << what;
        EXPECT_LE(e.f32, e.fast) << what;
        if (std::getenv("PION_TEST_TABLE") != nullptr)
          std::printf("%-45s bf16 %.1e fast %.1e accurate %.1e f32 %.1e\n", what.c_str(),
                      e.direct, e.fast, e.accurate, e.f32);
      }
    }
  }
}

// Some columns at a time.
TEST(AtenMap, OfALargeMatrixIsThatOfItsDefinition) {
  at::manual_seed(6);
  const LowerStepBytes lower(8 << 20);
  const at::Tensor x = at::randn({640, 1240});
  const NamedMap map{"muon", muon_sequence("classic", 1), 1.0};
  const at::Tensor wanted =
      iterated(map, x, at::kFloat, [](const at::Tensor& y) { return y; });
  // a CPU's norm in f32 is off by up to 1.3e-4 (measured); X of 11 bits by 2^-12
  for (const auto& [precision, tall, limit] :
       {std::tuple{Precision::kF32, false, 2e-4}, {Precision::kAccurate, true, 4e-4}}) {
    const at::Tensor got = aten_spectral_map(polynomial(map.sequence, 1.0, precision),
                                             (tall ? x.t() : x).unsqueeze(0))[0];
    EXPECT_LE(error(tall ? got.t() : got, wanted), limit) << tall;
  }
}

TEST(AtenMap, ZeroStaysZeroInABatch) {
  at::manual_seed(3);
  at::Tensor x = at::randn({3, 16, 40});
  x[1].zero_();
  for (const NamedMap& map : maps()) {
    for (const Precision precision :
         {Precision::kFast, Precision::kAccurate, Precision::kF32}) {
      const at::Tensor got =
          aten_spectral_map(polynomial(map.sequence, map.margin, precision), x);
      EXPECT_EQ(got[1].abs().max().item<double>(), 0.0);
      EXPECT_TRUE(at::isfinite(got).all().item<bool>());
    }
  }
}

// Scales of the input are powers of two away from one another: not a bit differs.
TEST(AtenMap, DoesNotDependOnTheScaleOfItsInput) {
  at::manual_seed(4);
  const at::Tensor x = at::randn({1, 24, 24});
  const auto map = polynomial(high_pass_sequence(2, 5), 1.0, Precision::kFast);
  const at::Tensor wanted = aten_spectral_map(map, x);
  for (const double scale : {0x1p-90, 0x1p-20, 0x1p60})
    EXPECT_TRUE(aten_spectral_map(map, x * scale).equal(wanted)) << scale;
}

// Widened products: tiles of one matrix as the whole.
TEST(Product, OfTilesIsThatOfTheWhole) {
  at::manual_seed(5);
  const at::Tensor a = at::randn({1, 300, 1500}).to(at::kHalf),
                   b = at::randn({1, 1500, 700}).to(at::kHalf);
  const at::Tensor wanted = a.to(at::kDouble).bmm(b.to(at::kDouble));
  // 1500 products of size 1 in any order of f32 sums
  const double tolerance = 1500 * 0x1p-24 * 60;
  EXPECT_LE((product(a, b, at::kFloat) - wanted).abs().max().item<double>(), tolerance);
  at::Tensor to = at::ones({1, 700, 300}).transpose(1, 2);
  add_product(to, a, b, 2, 0.5);
  EXPECT_LE((to - (0.5 * wanted + 2)).abs().max().item<double>(), tolerance);
  // rounded once: half a unit of numbers below 256
  EXPECT_LE((product(a, b, at::kHalf, 0.5) - 0.5 * wanted).abs().max().item<double>(),
            0x1p-4 + tolerance);
}

}  // namespace
}  // namespace pion
