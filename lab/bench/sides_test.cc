// SPDX-License-Identifier: Apache-2.0
// Both sides of a measurement do the same work: same weights after the same steps.
#include "lab/bench/sides.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lab/bench/map_errors.h"
#include "pion/kernels/cpu_target.h"
#include "pion/optim/matrix_step.h"

namespace pion::bench {
namespace {

// How many equal singular values a gradient's blocks have: 1 / sqrt(that) of the norm
// each. Pion with two promotions or more passes four, Muon brings any near 1; with a null
// space it would lift the roundings there by 3.4445^5.
std::int64_t equal_count(const Rule& rule, const ParameterShape& shape) {
  const std::int64_t all = std::min(shape.rows, shape.cols);
  return std::holds_alternative<MuonRule>(rule) ? all : std::min<std::int64_t>(4, all);
}

Problem equal_values(const std::string& shape_text, const std::string& rule_label) {
  Problem problem = make_problem(read_workload(shape_text),
                                 make_labelled_rule(rule_label), Spectrum::kPowerLaw, 3);
  std::visit([](auto& rule) { rule.lr = 0.5; }, problem.rule);
  for (at::Tensor& weight : problem.weights)
    weight.zero_();  // the update is all there is
  if (!is_matrix_rule(problem.rule)) return problem;
  for (std::size_t i = 0; i < problem.gradients.size(); ++i) {
    const ParameterShape& shape = problem.workload.parameters[i];
    const std::int64_t rank = equal_count(problem.rule, shape);
    std::vector<at::Tensor> blocks;
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      const at::Tensor left = std::get<0>(at::linalg_qr(at::randn({shape.rows, rank})));
      const at::Tensor right = std::get<0>(at::linalg_qr(at::randn({shape.cols, rank})));
      blocks.push_back(at::mm(left, right.t()));
    }
    problem.gradients[i] = join_blocks(at::stack(blocks), shape).contiguous();
  }
  return problem;
}

// How far a map of equal singular values s may lie from the exact one if every step makes
// 5 roundings (A, A A, b A + c A A, its product with X, the sum), each of relative size
// u / sqrt(3) in the root mean square over the entries. Roundings add as squares. One
// made at some step passes through the later ones, which change it by |p'(s)| along the
// singular vectors and by p(s) / s where it turns them. Three times that, since on equal
// values roundings of one product may all point the same way: sqrt(3).
double tolerance_of(const QuinticSequence& sequence, double s, double u) {
  const double one = u * u / 3;
  double square = 3 * one * s * s;  // X, its norm and its quotient rounded
  for (const Quintic& p : sequence) {
    const double x = s * s;
    const double slope = std::abs(p.a + x * (3 * p.b + x * 5 * p.c));
    // before the terms cancel
    const double terms = s * (std::abs(p.a) + x * (std::abs(p.b) + x * std::abs(p.c)));
    const double gain = std::max(slope, std::abs(p(s) / s));
    square = gain * gain * square + 5 * one * terms * terms;
    s = p(s);
  }
  return 3 * std::sqrt(square) / s;
}

double relative_gap(const at::Tensor& x, const at::Tensor& y) {
  return (at::norm(x - y) / at::norm(y)).item<double>();
}

void expect_equal_steps(const std::string& shape, const std::string& rule) {
  const Problem problem = equal_values(shape, rule);
  const Side pion = pion_side(problem, Precision::kF32);
  std::vector<Side> peers = peer_sides(problem, /*with_f32=*/true);
  // two steps: the second reads the momentum of the first
  for (int step = 0; step < 2; ++step) {
    pion.contender.step();
    for (const Side& peer : peers) peer.contender.step();
  }
  const std::vector<std::string> names = peer_names();
  for (const Side& peer : peers) {
    EXPECT_EQ(std::count(names.begin(), names.end(), peer.contender.name), 1);
    const std::vector<at::Tensor> expected = pion.weights(), got = peer.weights();
    ASSERT_EQ(expected.size(), got.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      double tolerance = 1e-5;  // element-wise: some f32 roundings, and 1 / sqrt(v)
      if (is_matrix_rule(problem.rule)) {
        const ParameterShape& block = problem.workload.parameters[i];
        const auto count = static_cast<double>(equal_count(problem.rule, block));
        // bf16: 2^-9; f32 on both sides, with sums of 64 terms: sqrt(64) 2^-24 each
        const bool narrow = peer.contender.name != "addmm_f32";
        tolerance = tolerance_of(rule_map(problem.rule, block.rows, block.cols).sequence,
                                 1 / std::sqrt(count), narrow ? 0x1p-9 : 2 * 8 * 0x1p-24);
      }
      EXPECT_LT(tolerance, 0.4);  // half of what another rule is away, see below
      EXPECT_GT(at::norm(expected[i]).item<double>(), 0);
      EXPECT_LE(relative_gap(got[i], expected[i]), tolerance)
          << peer.contender.name << ", " << rule << ", " << shape << ", parameter " << i;
    }
  }
}

TEST(Sides, PeersTakePionsStep) {
  for (const char* rule : {"pion2", "pion3", "pion4", "pion_auto", "muon"}) {
    for (const char* shape : {"16x48", "48x16", "32x32", "3x16x64", "3x64x16:cols",
                              "3x16x64:cols", "2*16x16+8x24"}) {
      expect_equal_steps(shape, rule);
    }
  }
}

TEST(Sides, FusedPeersTakePionsElementwiseStep) {
  for (const char* rule : {"adamw", "sgd"}) {
    for (const char* shape : {"16x48", "5*1x7+33x3"}) expect_equal_steps(shape, rule);
  }
}

// The test above can tell rules apart: another rule's update is far outside its bounds.
TEST(Sides, AnotherRuleIsAnotherStep) {
  const Problem two = equal_values("16x48", "pion2"),
                muon = equal_values("16x48", "muon");
  const Side pion = pion_side(two, Precision::kF32);
  const std::vector<Side> peers = peer_sides(muon, false);
  pion.contender.step();
  peers.front().contender.step();
  EXPECT_GT(relative_gap(peers.front().weights()[0], pion.weights()[0]), 0.5);
}

TEST(Sides, SeveralBlocksCannotBeTimedOutsideTheirMap) {
  const Problem problem = equal_values("2x16x16", "muon");
  EXPECT_THROW(outside_map_contenders(problem), std::invalid_argument);
  if (!has_bf16(cpu_target())) GTEST_SKIP() << "the target has no bf16";
  const Problem one = equal_values("16x48", "muon");
  for (const Contender& each : outside_map_contenders(one)) {
    EXPECT_NO_THROW(each.step()) << each.name;
  }
}

TEST(Problem, BlocksComeBackAsTheyWere) {
  for (const char* text : {"3x4x5", "3x4x5:cols", "4x5"}) {
    const ParameterShape shape = read_workload(text).parameters.front();
    const at::Tensor whole = at::randn({shape.all_rows(), shape.all_cols()});
    EXPECT_TRUE(at::equal(join_blocks(cut_in_blocks(whole, shape), shape), whole))
        << text;
  }
}

TEST(Problem, PowerLawGradientsPassEveryFilter) {
  for (const char* text : {"32x64", "8x128x256", "14x200x64:cols"}) {
    const Workload workload = read_workload(text);
    for (const char* label : {"pion2", "pion3", "pion4", "pion_auto"}) {
      const Rule rule = make_labelled_rule(label);
      const Problem problem = make_problem(workload, rule, Spectrum::kPowerLaw, 5);
      const ParameterShape& shape = workload.parameters.front();
      const at::Tensor blocks = cut_in_blocks(problem.gradients.front(), shape);
      for (std::int64_t head = 0; head < shape.heads; ++head) {
        const at::Tensor map =
            exact_map(blocks[head], rule_map(rule, shape.rows, shape.cols));
        EXPECT_GT(at::norm(map).item<double>(), 0.5) << text << " " << label;
      }
    }
  }
}

}  // namespace
}  // namespace pion::bench
