// SPDX-License-Identifier: Apache-2.0
#include "lab/report/comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

namespace pion::lab::report {
namespace {

Json run(const char* optimizer, double lr, int seed, const char* phase, Json score) {
  return {{"dir", "x"},     {"optimizer", optimizer},
          {"lr", lr},       {"seed", seed},
          {"phase", phase}, {"status", score.is_null() ? "failed" : "complete"},
          {"score", score}, {"wall_seconds", 2.0}};
}

Json file(std::initializer_list<Json> runs) {
  Json result = {{"task", "snake"},
                 {"score", "score_mean"},
                 {"higher_is_better", true},
                 {"optimizers", {"muon", "pion"}},
                 {"grid", {{"muon", {0.1, 0.2}}, {"pion", {0.1, 0.2, 0.4}}}}};
  result["runs"] = Json::array();
  for (const Json& entry : runs) result["runs"].push_back(entry);
  return result;
}

TEST(ParseComparison, TakesFinalRunsAtTheTunedRate) {
  Json json =
      file({run("muon", 0.1, 101, "tune", 9.0), run("muon", 0.2, 2, "final", 3.0),
            run("muon", 0.2, 1, "final", 1.0), run("muon", 0.1, 1, "final", 8.0)});
  json["best"] = {{"muon", 0.2}};
  const Entrant muon = parse_comparison(json.dump()).entrants[0];
  EXPECT_EQ(muon.runs, (std::vector<int>{2, 1}));  // by seed
  EXPECT_DOUBLE_EQ(muon.score.mean, 2.0);
  EXPECT_EQ(muon.edge, "highest");
  EXPECT_FALSE(muon.tuning_runs);
}

TEST(ParseComparison, FallsBackToTheGridWhileUnfinished) {
  const Comparison comparison = parse_comparison(
      file({run("pion", 0.1, 1, "tune", 1.0), run("pion", 0.2, 1, "tune", 5.0),
            run("pion", 0.4, 1, "tune", nullptr)})
          .dump());
  EXPECT_DOUBLE_EQ(comparison.entrants[1].lr, 0.2);
  EXPECT_TRUE(comparison.entrants[1].tuning_runs);
  EXPECT_EQ(comparison.entrants[1].edge, "");
  EXPECT_TRUE(comparison.entrants[0].runs.empty());
}

TEST(ParseComparison, RefusesWhatIsNoComparison) {
  for (const char* text :
       {"", "[]", "{}", R"({"optimizers":["a"]})", R"({"runs":[],"optimizers":[]})",
        R"({"runs":[],"optimizers":[1]})"}) {
    EXPECT_THROW(parse_comparison(text), std::invalid_argument) << text;
  }
}

TEST(Outcome, NamesTheWinnerOnlyBeyondTheSpread) {
  const Comparison clear = parse_comparison(
      file({run("muon", 0.1, 1, "final", 1.02), run("muon", 0.1, 2, "final", 1.1),
            run("pion", 0.1, 1, "final", 3.02), run("pion", 0.1, 2, "final", 3.1)})
          .dump());
  EXPECT_EQ(outcome(clear, kNan).headline, "Pion scored highest on snake");
  // t of one degree 12.706, standard error 0.04
  EXPECT_EQ(outcome(clear, 0.2).numbers,
            "Pion scored 3.1 ± 0.5 and Muon 1.1 ± 0.5 (mean ± 95 % CI over 2 seeds); "
            "before training the score is 0.2.");

  EXPECT_NE(outcome(clear, 0.2, 0.1).numbers.find("; a random policy scores 0.1."),
            std::string::npos);

  const Comparison close = parse_comparison(
      file({run("muon", 0.1, 1, "final", 1.0), run("muon", 0.1, 2, "final", 3.0),
            run("pion", 0.1, 1, "final", 2.0), run("pion", 0.1, 2, "final", 3.1)})
          .dump());
  EXPECT_EQ(outcome(close, kNan).headline, "Pion and Muon are level on snake");
  EXPECT_NE(outcome(close, kNan).verdict.find("within the spread"), std::string::npos);
}

TEST(Outcome, SaysWhenThereIsOneSeedOrNoScore) {
  const Comparison one = parse_comparison(
      file({run("muon", 0.1, 1, "final", 1.0), run("pion", 0.1, 1, "final", nullptr)})
          .dump());
  EXPECT_NE(outcome(one, kNan).numbers.find("one seed each: no interval"),
            std::string::npos);
  EXPECT_NE(outcome(one, kNan).numbers.find("No score from Pion"), std::string::npos);
  EXPECT_EQ(outcome(one, kNan).headline, "Only Muon has a score on snake");
  EXPECT_EQ(outcome(parse_comparison(file({}).dump()), kNan).headline,
            "No run on snake has a score yet");
  const Comparison equal = parse_comparison(
      file({run("muon", 0.1, 1, "final", 1.0), run("pion", 0.1, 1, "final", 1.0)})
          .dump());
  EXPECT_EQ(outcome(equal, kNan).headline, "Muon and Pion are level on snake");
}

TEST(Outcome, LowerIsBetterTurnsTheOrder) {
  Json json =
      file({run("muon", 0.1, 1, "final", 1.0), run("muon", 0.1, 2, "final", 1.1),
            run("pion", 0.1, 1, "final", 3.0), run("pion", 0.1, 2, "final", 3.1)});
  json["higher_is_better"] = false;
  EXPECT_EQ(outcome(parse_comparison(json.dump()), kNan).headline,
            "Muon scored lowest on snake");
}

TEST(FormatScore, ShowsTheDigitsThatTheIntervalDeserves) {
  EXPECT_EQ(format_score(7.912, 0.31), "7.9 ± 0.3");
  EXPECT_EQ(format_score(7.912, 0.123), "7.91 ± 0.12");
  EXPECT_EQ(format_score(1234.5, 56.0), "1234 ± 56");
  EXPECT_EQ(format_score(0.000217, 0.000031), "(2.2 ± 0.3)e-4");
  EXPECT_EQ(format_score(7.0, kNan), "7.00");
  // two digits of the mean, at most two places beyond the interval's digit
  EXPECT_EQ(format_score(0.8125, 2.38), "0.81 ± 2.38");
  EXPECT_EQ(format_score(0.5, 6.35), "0.50 ± 6.35");
  EXPECT_EQ(format_score(0.5, 60.0), "0.5 ± 60.0");
  EXPECT_EQ(format_score(0.0001, 0.3), "0.000 ± 0.300");
  EXPECT_EQ(format_score(25.0, 300.0), "25 ± 300");
  EXPECT_EQ(format_score(0.0, 0.0), "0 ± 0");
  EXPECT_EQ(format_score(kNan, kNan), "–");
  EXPECT_EQ(format_score(1e308, kNan), "1.00e308");
}

}  // namespace
}  // namespace pion::lab::report
