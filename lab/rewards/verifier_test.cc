// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/verifier.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

Verdict judge(const std::string& verifier, std::string_view response,
              std::string_view reference, const RewardWeights& weights = {}) {
  const Attempt attempt{"prompt", response, reference, ""};
  VerifierOptions options;
  options.weights = weights;
  return make_verifier(verifier, options)->judge({&attempt, 1}).at(0);
}

TEST(Verifier, TellsCorrectnessFromForm) {
  struct Case {
    const char *verifier, *response;
    bool correct, formatted, right_unformatted;
  };
  for (const Case& c :
       std::vector<Case>{{"boxed", "so \\boxed{72}", true, true, false},
                         {"boxed", "so \\boxed{72.0}", true, true, false},
                         {"boxed", "so \\boxed{71}", false, true, false},
                         {"boxed", "so 72", false, false, true},
                         {"boxed", "so \\boxed{72", false, false, true},
                         {"boxed", "so 71", false, false, false},
                         {"boxed", "\\boxed{71}, no: 72", false, true, false},
                         {"boxed", "", false, false, false},
                         {"hash", "so\n#### 72", true, true, false},
                         {"hash", "so\n#### 71", false, true, false},
                         {"hash", "so 72", false, false, true},
                         {"last_number", "so 72.", true, true, false},
                         {"last_number", "72, or 71", false, true, false},
                         {"last_number", "so", false, false, false}}) {
    const Verdict verdict = judge(c.verifier, c.response, "72");
    EXPECT_EQ(verdict.correct, c.correct) << c.verifier << " " << c.response;
    EXPECT_EQ(verdict.formatted, c.formatted) << c.verifier << " " << c.response;
    EXPECT_EQ(verdict.right_unformatted, c.right_unformatted)
        << c.verifier << " " << c.response;
    EXPECT_FALSE(verdict.failed);
    EXPECT_EQ(verdict.reward, c.correct ? 1 : 0);
  }
}

TEST(Verifier, WeighsCorrectnessAndForm) {
  const RewardWeights weights{.correct = 2, .format = 0.25};
  EXPECT_EQ(judge("boxed", "\\boxed{5}", "5", weights).reward, 2.25);
  EXPECT_EQ(judge("boxed", "\\boxed{6}", "5", weights).reward, 0.25);
  EXPECT_EQ(judge("boxed", "5", "5", weights).reward, 0);
}

TEST(Verifier, KeepsTheOrderOfABatch) {
  const std::vector<Attempt> attempts = {{"", "\\boxed{1}", "1", ""},
                                         {"", "\\boxed{1}", "2", ""},
                                         {"", "\\boxed{3}", "3", ""}};
  const auto verdicts = make_verifier("boxed", {})->judge(attempts);
  ASSERT_EQ(verdicts.size(), 3u);
  EXPECT_TRUE(verdicts[0].correct && !verdicts[1].correct && verdicts[2].correct);
  EXPECT_TRUE(make_verifier("boxed", {})->judge({}).empty());
}

// What stands in docs/data.md as a choice: the last whole box, also inside of a thought
// that does not end; the last mark; and what rl.answer_after changes.
TEST(Verifier, LooksWhereTheAnswerIsSaidToStand) {
  struct Case {
    const char *verifier, *after, *response;
    bool correct, formatted;
  };
  for (const Case& c : std::vector<Case>{
           {"boxed", "", "\\boxed{71} \\boxed{72}", true, true},
           {"boxed", "", "\\boxed{72} \\boxed{71}", false, true},
           {"boxed", "", "\\boxed{72} \\boxed{71", true, true},
           {"boxed", "", "<think>is it \\boxed{72}", true, true},
           {"hash", "", "#### 71\n#### 72", true, true},
           {"hash", "", "#### 72\n#### 71", false, true},
           {"boxed", "</think>", "<think>is it \\boxed{72}", false, false},
           {"boxed", "</think>", "<think>\\boxed{72}</think> no idea", false, false},
           {"boxed", "</think>", "<think>\\boxed{71}</think> \\boxed{72}", true, true},
           {"boxed", "</think>", "</think>\\boxed{71}</think>\\boxed{72}", true, true},
           {"last_number", "</think>", "<think>72</think> no", false, false},
           {"hash", "</think>", "</think>\n#### 72", true, true}}) {
    const Attempt attempt{"prompt", c.response, "72", ""};
    VerifierOptions options;
    options.answer_after = c.after;
    options.weights.format = 0.25;
    const Verdict verdict =
        make_verifier(c.verifier, options)->judge({&attempt, 1}).at(0);
    EXPECT_EQ(verdict.correct, c.correct) << c.verifier << " " << c.response;
    EXPECT_EQ(verdict.formatted, c.formatted) << c.verifier << " " << c.response;
    EXPECT_EQ(verdict.reward, (c.correct ? 1 : 0) + (c.formatted ? 0.25 : 0));
  }
}

TEST(Verifier, PaysAnyOfTheAlternatives) {
  const char* extra = R"({"level": 3, "alternatives": ["seven", "\\frac{14}{2}", "8"]})";
  const std::vector<Attempt> attempts = {
      {"", "\\boxed{7}", "VII", extra},
      {"", "\\boxed{seven}", "VII", extra},
      {"", "\\boxed{VII}", "VII", extra},
      {"", "\\boxed{9}", "VII", extra},
      {"", "so 8.", "VII", extra},
      {"", "\\boxed{7}", "VII", ""},
      {"", "\\boxed{7}", "VII", "{\"alternatives\": 7}"},
      {"", "\\boxed{7}", "VII", "{\"alternatives\": [7, "}};
  const auto verdicts = make_verifier("boxed", {})->judge(attempts);
  const std::vector<bool> right = {true, true, true, false, false, false, false, false};
  for (std::size_t i = 0; i < attempts.size(); ++i)
    EXPECT_EQ(verdicts[i].correct, right[i]) << i;
  EXPECT_TRUE(verdicts[4].right_unformatted);
}

TEST(Verifier, RefusesWhatItDoesNotKnow) {
  for (const char* name : {"", "box", ":score", "module:", "a:b:c", "--help:x"})
    expect_says(message_of([&] { make_verifier(name, {}); }), "module:function");
  VerifierOptions options;
  options.timeout_seconds = 0;
  expect_says(message_of([&] { make_verifier("boxed", options); }), "timeout_seconds");
  options = {};
  options.workers = 0;
  expect_says(message_of([&] { make_verifier("boxed", options); }), "workers");
  options = {};
  options.gigabytes = 0;
  expect_says(message_of([&] { make_verifier("boxed", options); }), "gigabytes");
  options = {};
  options.weights.format = std::numeric_limits<double>::quiet_NaN();
  expect_says(message_of([&] { make_verifier("boxed", options); }), "weights.format");
  options = {};
  options.failed_reward = std::numeric_limits<double>::infinity();
  expect_says(message_of([&] { make_verifier("boxed", options); }), "failed_reward");
}

}  // namespace
}  // namespace pion::lab
