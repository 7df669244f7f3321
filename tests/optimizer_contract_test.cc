// SPDX-License-Identifier: Apache-2.0
// One table of all update rules and what every one of them promises. A new rule is one
// row.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <limits>
#include <new>

#include "pion/optim/matrix_step.h"
#include "tests/random_matrix.h"

namespace {
std::atomic<std::size_t> allocations{0};
}

// Counts every allocation of the program. GCC, which inlines one of the two, takes malloc
// and delete for a mismatch.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  ++allocations;
  const auto step = static_cast<std::size_t>(alignment);
  if (void* memory = std::aligned_alloc(step, (size + step - 1) / step * step))
    return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace pion {
namespace {

constexpr std::int64_t kRows = 24, kCols = 16;

// One parameter with the state of whichever rule steps it.
struct Parameter {
  RandomMatrix<float> weight = gaussian_matrix<float>(kRows, kCols, 1);
  RandomMatrix<float> first = zero_matrix<float>(kRows, kCols);   // momentum, exp_avg
  RandomMatrix<float> second = zero_matrix<float>(kRows, kCols);  // exp_avg_sq
  std::int64_t step = 0;

  UpdateStatistics advance(const Rule& rule, const RandomMatrix<float>& gradient,
                           MatrixStepWorkspace& workspace) {
    const std::span<const float> g(gradient.data);
    UpdateStatistics what;
    if (const auto* adamw = std::get_if<AdamWRule>(&rule)) {
      what = adamw_step<float, float>(weight.data, g, first.data, second.data, step + 1,
                                      *adamw);
    } else if (const auto* sgd = std::get_if<SgdRule>(&rule)) {
      what = sgd_step<float, float>(weight.data, g, first.data, step + 1, *sgd);
    } else {
      static const HeadLayout layout{.heads = {2}};
      what = matrix_step<float>(weight.view(), gradient.view(), first.view(), rule,
                                layout, workspace);
    }
    step += what.skipped ? 0 : 1;
    return what;
  }
};

struct Row {
  std::string name;
  Rule rule;
  bool allocates = false;  // an SVD needs memory
};

std::vector<Row> table() {
  std::vector<Row> rows;
  for (const std::string& name : rule_names()) {
    rows.push_back(
        {name, make_rule(name), name == "low_rank_muon" || name == "low_pass_muon"});
  }
  rows[2].rule = [] {
    LowRankMuonRule r;
    r.rank = 3;
    return r;
  }();
  rows.push_back({"pion_cutoff", [] {
                    PionRule r;
                    r.cutoff = {Cutoff::Kind::kValue, 0.2};
                    r.nesterov = true;
                    return r;
                  }()});
  rows.push_back({"pion_spectral", [] {
                    PionRule r;
                    r.normalization = Normalization::kSpectral;
                    r.scale = Scale::kUnitRms;
                    return r;
                  }()});
  rows.push_back({"sgd_nesterov", SgdRule{.nesterov = true}});
  for (Row& row : rows) set_rule_key(row.rule, "weight_decay", 0.5);
  return rows;
}

class OptimizerContract : public testing::TestWithParam<Row> {
 protected:
  Rule rule_ = GetParam().rule;
  MatrixStepWorkspace workspace_;
};

RandomMatrix<float> gradient_at(std::uint64_t step) {
  return gaussian_matrix<float>(kRows, kCols, 100 + step);
}

TEST_P(OptimizerContract, LeavesTheGradientAsItIs) {
  Parameter p;
  const auto gradient = gradient_at(0);
  const auto before = gradient.data;
  for (int i = 0; i < 3; ++i) p.advance(rule_, gradient, workspace_);
  EXPECT_EQ(gradient.data, before);
}

TEST_P(OptimizerContract, OnlyDecaysOnAZeroGradient) {
  Parameter p;
  const auto before = p.weight.data;
  const auto what = p.advance(rule_, zero_matrix<float>(kRows, kCols), workspace_);
  EXPECT_EQ(what.update_rms, 0);
  const auto decay = static_cast<float>(1.0 - learning_rate(rule_) * 0.5);
  for (std::size_t i = 0; i < before.size(); ++i)
    EXPECT_EQ(p.weight.data[i], decay * before[i]);
}

TEST_P(OptimizerContract, MovesNoWeightAtLearningRateZero) {
  Parameter p;
  p.weight.data[0] = -0.0f;
  const auto before = p.weight.data;
  set_learning_rate(rule_, 0);
  const auto what = p.advance(rule_, gradient_at(0), workspace_);
  EXPECT_EQ(what.update_rms, 0);
  EXPECT_EQ(p.weight.data, before);
  EXPECT_TRUE(std::signbit(p.weight.data[0]));
}

TEST_P(OptimizerContract, GoesDownhill) {
  Parameter p;
  set_rule_key(rule_, "weight_decay", 0.0);
  const auto before = p.weight.data;
  // one strong direction that stands for all heads: every filter but the low pass lets it
  // pass
  auto gradient = gradient_at(0);
  for (std::int64_t i = 0; i < kRows; ++i) {
    for (std::int64_t j = 0; j < kCols; ++j)
      gradient(i, j) = 0.01f * gradient(i, j) + 1.0f;
  }
  p.advance(rule_, gradient, workspace_);
  double product = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    product += (double{p.weight.data[i]} - before[i]) * gradient.data[i];
  }
  EXPECT_LT(product, 0);
}

TEST_P(OptimizerContract, CopyingWeightAndStateHalfWayChangesNothing) {
  Parameter straight;
  for (std::uint64_t i = 0; i < 6; ++i)
    straight.advance(rule_, gradient_at(i), workspace_);
  Parameter stopped;
  for (std::uint64_t i = 0; i < 3; ++i)
    stopped.advance(rule_, gradient_at(i), workspace_);
  Parameter resumed = stopped;
  MatrixStepWorkspace fresh;  // holds nothing that matters
  for (std::uint64_t i = 3; i < 6; ++i) resumed.advance(rule_, gradient_at(i), fresh);
  EXPECT_EQ(resumed.weight.data, straight.weight.data);
  EXPECT_EQ(resumed.first.data, straight.first.data);
  EXPECT_EQ(resumed.second.data, straight.second.data);
}

TEST_P(OptimizerContract, TreatsNonFiniteGradientsByThePolicy) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity()}) {
    Parameter p;
    p.advance(rule_, gradient_at(0), workspace_);
    auto gradient = gradient_at(1);
    auto zeroed = gradient;
    gradient(3, 2) = bad, zeroed(3, 2) = 0;

    Parameter skipping = p;
    set_rule_key(rule_, "nonfinite", std::string("skip"));
    EXPECT_TRUE(skipping.advance(rule_, gradient, workspace_).skipped);
    EXPECT_EQ(skipping.weight.data, p.weight.data);
    EXPECT_EQ(skipping.first.data, p.first.data);
    EXPECT_EQ(skipping.second.data, p.second.data);
    EXPECT_EQ(skipping.step, p.step);

    Parameter raising = p;
    set_rule_key(rule_, "nonfinite", std::string("raise"));
    EXPECT_THROW(raising.advance(rule_, gradient, workspace_), std::invalid_argument);
    EXPECT_EQ(raising.weight.data, p.weight.data);
    EXPECT_EQ(raising.first.data, p.first.data);

    Parameter zeroing = p, reference = p;
    set_rule_key(rule_, "nonfinite", std::string("zero"));
    EXPECT_FALSE(zeroing.advance(rule_, gradient, workspace_).skipped);
    reference.advance(rule_, zeroed, workspace_);
    EXPECT_EQ(zeroing.weight.data, reference.weight.data);
    EXPECT_EQ(zeroing.first.data, reference.first.data);
  }
}

TEST_P(OptimizerContract, AllocatesNothingAfterTheFirstStep) {
  if (GetParam().allocates) GTEST_SKIP() << "an SVD allocates";
  Parameter p;
  std::vector<RandomMatrix<float>> gradients;
  for (std::uint64_t i = 0; i < 4; ++i) gradients.push_back(gradient_at(i));
  p.advance(rule_, gradients[0], workspace_);
  const std::size_t before = allocations;
  for (std::size_t i = 1; i < 4; ++i) {
    set_learning_rate(rule_, 1e-3 / static_cast<double>(i));  // as a schedule does
    p.advance(rule_, gradients[i], workspace_);
  }
  EXPECT_EQ(allocations - before, 0u);
}

TEST_P(OptimizerContract, RefusesSizesThatDiffer) {
  Parameter p;
  const auto before = p.weight.data;
  EXPECT_THROW(p.advance(rule_, gaussian_matrix<float>(kRows, kCols - 1, 3), workspace_),
               std::invalid_argument);
  EXPECT_EQ(p.weight.data, before);
}

INSTANTIATE_TEST_SUITE_P(AllRules, OptimizerContract, testing::ValuesIn(table()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace pion
