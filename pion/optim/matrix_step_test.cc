// SPDX-License-Identifier: Apache-2.0
// matrix_step against its definition: an SVD in double, the formula written out, several
// steps.
#include "pion/optim/matrix_step.h"

#include <gtest/gtest.h>

#include <Eigen/SVD>
#include <cmath>
#include <functional>
#include <limits>

#include "tests/random_matrix.h"
#include "tests/spectral_map_bound.h"

namespace pion {
namespace {

using Matrix = Eigen::MatrixXd;
using Svd = Eigen::JacobiSVD<Matrix, Eigen::HouseholderQRPreconditioner>;

Matrix as_eigen(const RandomMatrix<double>& x) {
  Matrix result(x.rows, x.cols);
  for (std::int64_t i = 0; i < x.rows; ++i) {
    for (std::int64_t j = 0; j < x.cols; ++j) result(i, j) = x(i, j);
  }
  return result;
}

std::vector<double> spectrum(const Matrix& x) {
  const Eigen::VectorXd s = Svd(x).singularValues();
  return {s.begin(), s.end()};
}

// U f(S / ||X||_F) V^T.
Matrix mapped(const Matrix& x, const std::function<double(double)>& f) {
  const Svd svd(x, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const double norm = x.norm();
  Eigen::VectorXd s = svd.singularValues();
  for (double& value : s) value = norm == 0 ? 0 : f(value / norm);
  return svd.matrixU() * s.asDiagonal() * svd.matrixV().transpose();
}

double classic(double s) {
  for (int i = 0; i < 5; ++i)
    s = 3.4445 * s - 4.7750 * s * s * s + 2.0315 * std::pow(s, 5);
  return s;
}
double promoted_twice(double s) {
  for (int i = 0; i < 2; ++i) s = 1.875 * s - 1.25 * s * s * s + 0.375 * std::pow(s, 5);
  for (int i = 0; i < 3; ++i) s = 2.5 * s * s * s - 1.5 * std::pow(s, 5);
  return s;
}

struct Case {
  std::string name;
  Rule rule;
  std::function<double(double)> response;
  double scale;  // s for a block
};

Rule pion_two() {
  PionRule rule;
  rule.promotion_steps = 2;
  rule.weight_decay = 0.1;
  return rule;
}
Rule muon_original() {
  MuonRule rule;
  rule.scale = Scale::kOriginal;
  rule.lr = 0.02;
  return rule;
}

// Four steps in T; the weight may differ from the definition's by what rounding explains.
template <class T>
void follow_definition(const Case& c, std::int64_t rows, std::int64_t cols,
                       const HeadLayout& layout, double roundoff) {
  SCOPED_TRACE(c.name + " " + std::to_string(rows) + " x " + std::to_string(cols));
  const MatrixRule& rule = *matrix_rule(c.rule);
  auto weight = gaussian_matrix<T>(rows, cols, 1), momentum = zero_matrix<T>(rows, cols);
  Matrix w = as_eigen(converted<double>(weight)), m = Matrix::Zero(rows, cols);
  MatrixStepWorkspace workspace;
  double tolerance = 0;
  for (std::uint64_t step = 1; step <= 4; ++step) {
    const auto gradient = gaussian_matrix<T>(rows, cols, 10 + step);
    const UpdateStatistics what =
        matrix_step<T>(weight.view(), std::as_const(gradient).view(), momentum.view(),
                       c.rule, layout, workspace);
    const Matrix g = as_eigen(converted<double>(gradient));
    m = rule.momentum * m + (1 - rule.momentum) * g;
    const Matrix d =
        rule.nesterov ? Matrix(rule.momentum * m + (1 - rule.momentum) * g) : m;
    w *= 1 - rule.lr * rule.weight_decay;
    double squares = 0, passed = 0;
    for (const Block& b : head_blocks(layout, rows, cols)) {
      const Matrix block = d.block(b.row, b.col, b.rows, b.cols);
      const Matrix o = mapped(block, c.response);
      w.block(b.row, b.col, b.rows, b.cols) -= rule.lr * c.scale * o;
      squares += std::pow(rule.lr * c.scale * o.norm(), 2);
      passed += o.squaredNorm();
      // the map's own roundings, and the momentum's: no more than 4 u a step, which enter
      // like the 4 u F that the bound starts from
      const double bound =
          rounding_bound(rule_map(c.rule, b.rows, b.cols), spectrum(block), roundoff);
      tolerance += rule.lr * c.scale * static_cast<double>(1 + step) * bound;
    }
    tolerance += 3 * roundoff * w.norm();  // product, product, difference
    EXPECT_LE((as_eigen(converted<double>(weight)) - w).norm(), tolerance)
        << "step " << step;
    EXPECT_NEAR(what.update_rms, std::sqrt(squares / static_cast<double>(rows * cols)),
                tolerance / std::sqrt(static_cast<double>(rows * cols)));
    EXPECT_NEAR(std::sqrt(what.directions_passed), std::sqrt(passed),
                tolerance / (rule.lr * c.scale));
    // a sum in double, or in float over blocks: half of 260 u of the squares
    const double norm_error = std::is_same_v<T, double> ? 1e-12 : 130 * kUnitRoundoff32;
    EXPECT_NEAR(what.gradient_norm, g.norm(), norm_error * g.norm());
  }
}

TEST(MatrixStep, FollowsTheDefinitionStepByStep) {
  const std::vector<Case> cases = {
      {"pion", pion_two(), promoted_twice, 0.2 * std::sqrt(48.0)},
      {"muon", muon_original(), classic, std::sqrt(2.0)}};
  for (Case c : cases) {
    follow_definition<double>(c, 48, 24, {}, kUnitRoundoff64);
    for (const char* precision : {"accurate", "fast"}) {
      set_rule_key(c.rule, "precision", precision);
      follow_definition<float>(c, 48, 24, {}, kUnitRoundoff16);
    }
    set_rule_key(c.rule, "precision", "f32");
    follow_definition<float>(c, 48, 24, {}, kUnitRoundoff32);
  }
  // blocks of (12 x 24): the scale is the block's
  const std::vector<Case> per_head = {
      {"pion", pion_two(), promoted_twice, 0.2 * std::sqrt(24.0)},
      {"muon", muon_original(), classic, 1.0}};
  for (const Case& c : per_head) {
    follow_definition<double>(c, 48, 24, {.heads = {4}}, kUnitRoundoff64);
  }
}

TEST(MatrixStep, KeepsTheLargestSingularValuesUnderLowRankMuon) {
  LowRankMuonRule rule;
  rule.rank = 2, rule.momentum = 0, rule.lr = 0.5, rule.scale = Scale::kSpectral;
  const auto g = with_spectrum(16, 16, {5, 4, 2, 1}, 3);
  const auto gradient = g.matrix();
  auto weight = zero_matrix<double>(16, 16), momentum = weight;
  MatrixStepWorkspace workspace;
  matrix_step<double>(weight.view(), gradient.view(), momentum.view(), rule, {},
                      workspace);
  const auto expected = g.mapped([](double s) { return s > 3 ? -0.5 : 0.0; });
  // a perturbation of n u ||G|| turns singular vectors by itself over the gap of 2, twice
  const double tolerance = 0.5 * 2 * 2 * 16 * kUnitRoundoff64 * 7 / 2 * 4;
  EXPECT_LE(frobenius_distance(weight, expected), tolerance);
}

TEST(MatrixStep, LetsOnlyTheWeakDirectionsPassUnderLowPassMuon) {
  LowPassMuonRule rule;
  rule.cutoff = 0.4, rule.momentum = 0, rule.lr = 1, rule.scale = Scale::kSpectral;
  // relative to 6.40: 0.94, 0.31, 0.16
  const auto g = with_spectrum(12, 12, {6, 2, 1}, 5);
  const auto gradient = g.matrix();
  auto weight = zero_matrix<double>(12, 12), momentum = weight;
  MatrixStepWorkspace workspace;
  const auto what = matrix_step<double>(weight.view(), gradient.view(), momentum.view(),
                                        rule, {}, workspace);
  // singular values of zero count as below the cutoff or not at all; both have no
  // direction
  const auto expected = g.mapped([](double s) { return s < 2.56 ? -1.0 : 0.0; });
  const auto others = reference_product(reference_product(transposed(g.u), weight), g.v);
  EXPECT_NEAR(others(0, 0), 0.0, 1e-13);  // 100 u ||G|| / gap
  EXPECT_NEAR(others(1, 1), -1.0, 1e-13);
  EXPECT_NEAR(others(2, 2), -1.0, 1e-13);
  EXPECT_GE(what.directions_passed, 2.0 - 1e-12);
}

// Every block as a parameter of its own, with the same gradients.
void equals_separate_parameters(const Rule& rule, std::int64_t rows, std::int64_t cols,
                                const HeadLayout& layout) {
  auto weight = gaussian_matrix<float>(rows, cols, 1),
       momentum = zero_matrix<float>(rows, cols);
  std::vector<RandomMatrix<float>> weights, momenta;
  const std::vector<Block> blocks = head_blocks(layout, rows, cols);
  const auto cut = [](RandomMatrix<float>& x, const Block& b) {
    auto part = zero_matrix<float>(b.rows, b.cols);
    for (std::int64_t i = 0; i < b.rows; ++i) {
      for (std::int64_t j = 0; j < b.cols; ++j) part(i, j) = x(b.row + i, b.col + j);
    }
    return part;
  };
  for (const Block& b : blocks) {
    weights.push_back(cut(weight, b));
    momenta.push_back(zero_matrix<float>(b.rows, b.cols));
  }
  MatrixStepWorkspace together, apart;
  for (std::uint64_t step = 0; step < 3; ++step) {
    auto gradient = gaussian_matrix<float>(rows, cols, 20 + step);
    for (std::int64_t j = 0; j < cols; ++j)
      gradient(0, j) *= 30;  // heads of unequal size
    matrix_step<float>(weight.view(), std::as_const(gradient).view(), momentum.view(),
                       rule, layout, together);
    for (std::size_t k = 0; k < blocks.size(); ++k) {
      const auto part = cut(gradient, blocks[k]);
      matrix_step<float>(weights[k].view(), part.view(), momenta[k].view(), rule, {},
                         apart);
      EXPECT_EQ(cut(weight, blocks[k]).data, weights[k].data)
          << "block " << k << " step " << step;
    }
  }
}

TEST(MatrixStep, PerHeadEqualsSeparateParametersBitForBit) {
  for (const char* name : {"pion", "muon"}) {
    const Rule rule = make_rule(name);
    SCOPED_TRACE(name);
    equals_separate_parameters(rule, 64, 48, {.heads = {4}});  // Q
    equals_separate_parameters(rule, 32, 48, {.heads = {2}});  // K of GQA
    equals_separate_parameters(rule, 48, 64,
                               {.axis = 1, .heads = {4}});  // output projection
    equals_separate_parameters(rule, 96, 48, {.sizes = {64, 16, 16}, .heads = {4, 1, 1}});
    equals_separate_parameters(rule, 48, 90,
                               {.axis = 1, .sizes = {60, 30}, .heads = {3, 2}});
  }
}

TEST(MatrixStep, ScalesByTheRowsOfTheOutputWhereStorageIsTransposed) {
  MuonRule rule;
  rule.scale = Scale::kSpectral, rule.lr = 1, rule.momentum = 0;
  const auto gradient = gaussian_matrix<double>(32, 8, 3);
  auto weight = zero_matrix<double>(32, 8), momentum = weight;
  auto other = weight, other_momentum = weight;
  MatrixStepWorkspace workspace;
  const double out_in = matrix_step<double>(weight.view(), gradient.view(),
                                            momentum.view(), rule, {}, workspace)
                            .update_rms;
  const double in_out =
      matrix_step<double>(other.view(), gradient.view(), other_momentum.view(), rule,
                          {.transposed = true}, workspace)
          .update_rms;
  // sqrt(32 / 8) and sqrt(8 / 32)
  EXPECT_NEAR(out_in / in_out, 4.0, 1e-14);
}

// Every rule's s makes of an exactly orthogonal O the size that its comment states.
TEST(MatrixStep, GivesEveryScaleRuleItsUpdateSize) {
  struct Expectation {
    Scale scale;
    std::optional<double> factor;
    std::function<double(double, double)> rms;
  };
  const std::vector<Expectation> table = {
      {Scale::kMatchRmsAdamW, {}, [](double, double) { return 0.2; }},
      {Scale::kOriginal,
       {},
       [](double m, double n) {
         return std::sqrt(std::max(1.0, m / n) / std::max(m, n));
       }},
      {Scale::kSpectral,
       {},
       [](double m, double n) { return std::sqrt(m / n / std::max(m, n)); }},
      {Scale::kOfficial, {}, [](double, double) { return 2.0; }},
      {Scale::kOfficial, 5.0, [](double, double) { return 5.0; }},
      {Scale::kUnitRms, {}, [](double, double) { return 1.0; }},
      {Scale::kUnitRms, 0.3, [](double, double) { return 0.3; }}};
  const std::vector<std::pair<std::int64_t, std::int64_t>> shapes = {
      {16, 16}, {64, 16}, {16, 64}, {1, 16}, {16, 1}};
  for (const auto& [scale, factor, rms] : table) {
    for (const auto& [m, n] : shapes) {
      LowRankMuonRule
          rule;  // an exact polar factor: ||O||_F^2 = min(m, n), its RMS 1/sqrt(max)
      rule.lr = 0.1, rule.scale = scale, rule.scale_factor = factor;
      const auto gradient = gaussian_matrix<double>(m, n, 7);
      auto weight = zero_matrix<double>(m, n), momentum = weight;
      MatrixStepWorkspace workspace;
      const auto what = matrix_step<double>(weight.view(), gradient.view(),
                                            momentum.view(), rule, {}, workspace);
      double squares = 0;
      for (const double w : weight.data) squares += w * w;
      const double expected = 0.1 * rms(static_cast<double>(m), static_cast<double>(n));
      // kUnitRms has its floor, 1e-4 of at least 1; the SVD is good to 1e-13
      const double relative = scale == Scale::kUnitRms ? kUnitRmsFloor : 1e-13;
      EXPECT_NEAR(std::sqrt(squares / static_cast<double>(m * n)), expected,
                  relative * expected)
          << scale_name(scale) << " [" << m << ", " << n << "]";
      EXPECT_NEAR(what.update_rms, expected, relative * expected);
    }
  }
}

TEST(MatrixStep, LeavesAnEmptyUpdateEmptyUnderUnitRms) {
  PionRule rule;
  rule.promotion_steps = 0, rule.scale = Scale::kUnitRms, rule.lr = 1;
  // a 64 x 64 Gaussian has nothing near 0.8 of its norm: the filter passes less than
  // 1e-30
  const auto gradient = gaussian_matrix<double>(64, 64, 5);
  auto weight = zero_matrix<double>(64, 64), momentum = weight;
  MatrixStepWorkspace workspace;
  const auto what = matrix_step<double>(weight.view(), gradient.view(), momentum.view(),
                                        rule, {}, workspace);
  EXPECT_LT(what.update_rms, 1e-20);
}

TEST(MatrixStep, ReportsTheSpectrumOfItsBlocks) {
  MuonRule rule;
  rule.momentum = 0;
  auto gradient = zero_matrix<double>(4, 2);
  gradient(0, 0) = 3, gradient(1, 1) = 4;   // head 0: norm 5, sigma_max 4
  gradient(2, 0) = 10, gradient(3, 1) = 0;  // head 1: norm 10, one direction
  auto weight = zero_matrix<double>(4, 2), momentum = weight;
  MatrixStepWorkspace workspace;
  const auto what = matrix_step<double>(weight.view(), std::as_const(gradient).view(),
                                        momentum.view(), rule, {.heads = {2}}, workspace);
  EXPECT_EQ(what.directions, 4);
  EXPECT_NEAR(what.head_spread, 2.0, 1e-12);
  EXPECT_NEAR(what.sigma_max, 1.0, 0.01);  // 1 % is the estimate's promise
  EXPECT_NEAR(what.stable_rank, (25.0 / 16.0 + 1.0) / 2.0, 0.03);  // twice that, squared
  EXPECT_NEAR(what.gradient_norm, std::sqrt(125.0), 1e-12);
  workspace.collect_spectrum = false;
  const auto less = matrix_step<double>(weight.view(), std::as_const(gradient).view(),
                                        momentum.view(), rule, {.heads = {2}}, workspace);
  EXPECT_EQ(less.sigma_max, 0);
  EXPECT_GT(less.directions_passed, 0);
}

TEST(MatrixStep, RefusesWhatDoesNotFitAndWritesNothing) {
  auto weight = gaussian_matrix<float>(6, 4, 1),
       momentum = gaussian_matrix<float>(6, 4, 2);
  const auto gradient = gaussian_matrix<float>(6, 4, 3),
             wrong = gaussian_matrix<float>(4, 6, 3);
  const auto before = weight.data, state = momentum.data;
  MatrixStepWorkspace workspace;
  const auto refused = [&](const RandomMatrix<float>& g, const Rule& rule,
                           const HeadLayout& layout, const std::string& part) {
    try {
      matrix_step<float>(weight.view(), g.view(), momentum.view(), rule, layout,
                         workspace);
      ADD_FAILURE() << "accepted: " << part;
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
    EXPECT_EQ(weight.data, before);
    EXPECT_EQ(momentum.data, state);
  };
  MuonRule negative;
  negative.lr = -1;
  PionRule edge;
  edge.cutoff.kind = Cutoff::Kind::kNoiseEdge, edge.edge_factor = 0.01;
  refused(wrong, make_rule("muon"), {},
          "gradient must have the shape of weight, [6, 4], got [4, 6]");
  refused(gradient, make_rule("adamw"), {}, "must be one for matrices, got \"adamw\"");
  refused(gradient, make_rule("muon"), {.heads = {4}},
          "must divide its rows, 6, got 4 heads");
  refused(gradient, make_rule("muon"), {.sizes = {4, 4}, .heads = {1, 1}}, "sum to 6");
  refused(gradient, make_rule("muon"), {.sizes = {4, 2}}, "one count per part, 2");
  refused(gradient, make_rule("muon"), {.axis = 2}, "axis must be 0");
  refused(gradient, make_rule("muon"), {.heads = {0}}, "must be positive");
  refused(gradient, negative, {}, "lr must be >= 0, got -1");
  refused(gradient, edge, {}, "raise steps or edge_factor");

  auto narrow = weight.view();
  narrow.stride = 3;
  EXPECT_THROW(matrix_step<float>(narrow, gradient.view(), momentum.view(),
                                  make_rule("muon"), {}, workspace),
               std::invalid_argument);
  EXPECT_THROW(matrix_step<float>({nullptr, 6, 4, 4}, gradient.view(), momentum.view(),
                                  make_rule("muon"), {}, workspace),
               std::invalid_argument);
  EXPECT_EQ(weight.data, before);
}

TEST(RuleMap, SetsTheAutomaticCutoffByTheNoiseEdge) {
  PionRule rule;
  EXPECT_DOUBLE_EQ(rule_cutoff(rule, 64, 64), 0.3);  // 2 (1/8 + 1/8) = 0.5 is above
  EXPECT_DOUBLE_EQ(rule_cutoff(rule, 1024, 1024), 4.0 / 32);
  EXPECT_DOUBLE_EQ(rule_cutoff(rule, 1 << 20, 1 << 20), smallest_cutoff(5));
  rule.cutoff.kind = Cutoff::Kind::kNoiseEdge;
  rule.edge_factor = 3;
  EXPECT_DOUBLE_EQ(rule_cutoff(rule, 1024, 256), 3.0 / 32 + 3.0 / 16);
  EXPECT_DOUBLE_EQ(rule_cutoff(rule, 1, 64), kLargestCutoff);
  // the published half-pass points of five steps
  const double published[] = {0.798, 0.492, 0.263, 0.131, 0.060, 0.023};
  for (int k = 0; k <= 5; ++k) {
    EXPECT_NEAR(half_pass_point(high_pass_sequence(k, 5)), published[k], 0.0006) << k;
  }
}

}  // namespace
}  // namespace pion
