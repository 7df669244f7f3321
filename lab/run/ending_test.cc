// SPDX-License-Identifier: Apache-2.0
#include "lab/run/ending.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

namespace pion::lab {
namespace {

constexpr double kNan = EndingSigns::kUnknown;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A policy that was trained to a score of 0.6 from 0.4.
EndingSigns learned() {
  return {.score_before = 0.4,
          .score = 0.6,
          .curve_first = 0.3,
          .curve_last = 0.5,
          .entropy_first = 0.7,
          .entropy_last = 0.2};
}

TEST(Ending, IsCompleteWhereSomethingWasLearned) {
  EXPECT_EQ(ending_of(learned()).kind, EndingKind::kComplete);
  EXPECT_EQ(ending_of(learned()).reason, "");
  EndingSigns only_score;  // a task without entropy
  only_score.score = 3;
  EXPECT_EQ(ending_of(only_score).kind, EndingKind::kComplete);
  EndingSigns worse = learned();
  worse.score = 0.1, worse.curve_last = 0.1;  // forgot, but still tries this and that
  EXPECT_EQ(ending_of(worse).kind, EndingKind::kComplete);
}

TEST(Ending, DivergesWhereNumbersAreNotFinite) {
  for (const double score : {kNan, kInfinity, -kInfinity}) {
    EndingSigns signs = learned();
    signs.score = score;
    EXPECT_EQ(ending_of(signs).kind, EndingKind::kDiverged) << score;
  }
  EndingSigns signs = learned();
  signs.weights_finite = false;
  EXPECT_EQ(ending_of(signs).kind, EndingKind::kDiverged);
  signs = learned();
  signs.losses_finite = false;
  EXPECT_EQ(ending_of(signs).kind, EndingKind::kDiverged);
}

TEST(Ending, IsUntrainedWhereNoWeightMoved) {
  EndingSigns signs = learned();
  signs.weights_moved = false;
  EXPECT_EQ(ending_of(signs).kind, EndingKind::kUntrained);
}

TEST(Ending, CollapsesWhereCertaintyBroughtNothing) {
  EndingSigns signs = learned();
  signs.entropy_last = 0.0;
  EXPECT_EQ(ending_of(signs).kind, EndingKind::kComplete);  // certain and better
  signs.score = 0.4;
  EXPECT_EQ(ending_of(signs).kind, EndingKind::kComplete);  // its rewards rose
  signs.curve_last = 0.3;
  const Ending ending = ending_of(signs);
  EXPECT_EQ(ending.kind, EndingKind::kCollapsed);
  EXPECT_EQ(ending.reason,
            "the policy's entropy fell from 0.7 to 0 nats, its score from 0.4 to 0.4");
  signs.entropy_first = 0.0;  // as certain before
  EXPECT_EQ(ending_of(signs).kind, EndingKind::kComplete);
}

TaskInfo task() {
  TaskInfo info;
  info.score = "accuracy", info.curve = "reward_mean";
  return info;
}

TEST(Ending, ReadsTheFirstAndTheLastTenth) {
  std::ostringstream lines;
  lines << R"({"kind": "evaluation", "step": 0, "metrics": {"accuracy": 0.25}})" << "\n"
        << "damaged {\n";
  for (int step = 1; step <= 20; ++step)
    lines << R"({"kind": "update", "step": )" << step
          << R"(, "metrics": {"reward_mean": )" << step << R"(, "entropy": )"
          << (step == 20 ? "null" : std::to_string(40 - step)) << "}}\n";
  lines << R"({"kind": "evaluation", "step": 20, "metrics": {"accuracy": 0.75}})" << "\n";
  std::istringstream metrics(lines.str());
  const EndingSigns signs = read_signs(metrics, task());
  EXPECT_EQ(signs.score_before, 0.25);
  EXPECT_EQ(signs.curve_first, 1.5);  // of updates 1 and 2
  EXPECT_EQ(signs.curve_last, 19.5);  // of 19 and 20
  EXPECT_EQ(signs.entropy_first, 38.5);
  EXPECT_EQ(signs.entropy_last, 21);  // of 19 alone
  std::istringstream none("");
  EXPECT_TRUE(std::isnan(read_signs(none, task()).entropy_last));
}

TEST(Ending, LooksForLossesThatAreNotFiniteInAllOfTheLastTenth) {
  const auto finite = [](const std::string& before_last, const std::string& last) {
    std::ostringstream lines;
    for (int step = 1; step <= 20; ++step)
      lines << R"({"kind": "update", "step": )" << step << R"(, "metrics": )"
            << (step == 20 ? last : before_last) << "}\n";
    std::istringstream metrics(lines.str());
    return read_signs(metrics, task()).losses_finite;
  };
  EXPECT_TRUE(finite(R"({"loss": 1, "gradient_norm": 2})", R"({"loss": 1})"));
  EXPECT_TRUE(finite(R"({"loss": 1})", R"({"loss": null})"));
  EXPECT_FALSE(finite(R"({"value_loss": null})", R"({"loss": null})"));
  EXPECT_FALSE(
      finite(R"({"loss": 1, "gradient_norm": null})", R"({"gradient_norm": null})"));
  EXPECT_TRUE(finite(R"({"kl_to_start": null})", R"({"return_mean": null})"));
}

TEST(Ending, ReadsResultsOfEarlierVersionsToo) {
  const auto path = std::filesystem::path(testing::TempDir()) / "pion_ending_result.json";
  const auto kind = [&](const std::string& text) {
    std::ofstream(path) << text;
    return read_ending(path).kind;
  };
  EXPECT_EQ(kind(R"({"status": "complete", "score": 0.5})"), EndingKind::kComplete);
  EXPECT_EQ(kind(R"({"status": "complete", "score": null})"), EndingKind::kDiverged);
  EXPECT_EQ(kind(R"({"status": "collapsed", "score": 0.5})"), EndingKind::kCollapsed);
  std::ofstream(path) << R"({"status": "untrained", "score": 1, "reason": "because"})";
  EXPECT_EQ(read_ending(path).reason, "because");
  std::filesystem::remove(path);
  EXPECT_EQ(read_ending(path).kind, EndingKind::kComplete);
}

TEST(Ending, WeightsAreKnownByEveryBitAndSeenToBeFinite) {
  torch::nn::Linear model(torch::nn::LinearOptions(3, 5));  // 15 and 5 numbers
  const std::uint64_t before = weights_digest(*model);
  EXPECT_EQ(weights_digest(*model), before);
  const torch::NoGradGuard no_grad;
  for (torch::Tensor parameter : model->parameters())
    for (std::int64_t i = 0; i < parameter.numel(); ++i) {
      float& entry = parameter.data_ptr<float>()[i];
      const float kept = entry;
      entry = std::nextafter(kept, 10.0f);
      EXPECT_NE(weights_digest(*model), before) << i;
      entry = NAN;
      EXPECT_FALSE(weights_finite(*model));
      entry = kept;
    }
  EXPECT_EQ(weights_digest(*model), before);
  EXPECT_TRUE(weights_finite(*model));
}

}  // namespace
}  // namespace pion::lab
