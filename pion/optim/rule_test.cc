// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/rule.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/thrown_message.h"

namespace pion {
namespace {

TEST(Rule, EveryNameMakesItsRuleWhoseKeysReadAndWriteBack) {
  for (const std::string& name : rule_names()) {
    Rule rule = make_rule(name);
    EXPECT_EQ(rule_name(rule), name);
    check_rule(rule, "test");
    for (const RuleKey& key : rule_keys(rule)) {
      EXPECT_FALSE(key.description.empty()) << key.name;
      EXPECT_EQ(get_rule_key(rule, key.name), key.value);
      if (key.value) set_rule_key(rule, key.name, *key.value);
      EXPECT_EQ(get_rule_key(rule, key.name), key.value) << name << " " << key.name;
    }
    set_learning_rate(rule, 0.25);
    EXPECT_EQ(learning_rate(rule), 0.25);
    EXPECT_EQ(std::get<double>(*get_rule_key(rule, "lr")), 0.25);
  }
}

TEST(Rule, SetsValuesByKeyInEveryType) {
  Rule rule = make_rule("pion");
  set_rule_key(rule, "lr", std::int64_t{1});  // an integer where a number is wanted
  set_rule_key(rule, "cutoff", 0.25);
  EXPECT_EQ(std::get<PionRule>(rule).cutoff, (Cutoff{Cutoff::Kind::kValue, 0.25}));
  set_rule_key(rule, "cutoff", std::string("noise_edge"));
  EXPECT_EQ(std::get<PionRule>(rule).cutoff.kind, Cutoff::Kind::kNoiseEdge);
  set_rule_key(rule, "promotion_steps", std::int64_t{2});
  set_rule_key(rule, "scale", std::string("official"));
  set_rule_key(rule, "scale_factor", 5.0);
  set_rule_key(rule, "nesterov", true);
  set_rule_key(rule, "normalization", std::string("spectral"));
  set_rule_key(rule, "nonfinite", std::string("raise"));
  const PionRule& pion = std::get<PionRule>(rule);
  EXPECT_EQ(pion.lr, 1.0);
  EXPECT_EQ(pion.promotion_steps, 2);
  EXPECT_EQ(pion.scale, Scale::kOfficial);
  EXPECT_EQ(pion.scale_factor, 5.0);
  EXPECT_TRUE(pion.nesterov);
  EXPECT_EQ(pion.normalization, Normalization::kSpectral);
  EXPECT_EQ(pion.nonfinite, NonFinite::kRaise);
}

TEST(Rule, RefusesUnknownKeysWrongTypesAndValuesOutOfRange) {
  struct Refusal {
    const char* rule;
    const char* key;
    RuleValue value;
    const char* says;
  };
  const double inf = std::numeric_limits<double>::infinity();
  const Refusal table[] = {
      {"adamw", "learning_rate", 1.0, "did you mean \"lr\""},
      {"adamw", "wieght_decay", 1.0, "did you mean \"weight_decay\""},
      {"adamw", "momentum", 0.9, "unknown key \"momentum\" for rule \"adamw\""},
      {"adamw", "lr", std::string("fast"), "lr must be a number >= 0, got \"fast\""},
      {"adamw", "lr", true, "lr must be a number >= 0, got true"},
      {"adamw", "lr", -0.1, "lr must be >= 0, got -0.1"},
      {"adamw", "lr", inf, "lr must be >= 0, got inf"},
      {"adamw", "eps", 0.0, "eps must be > 0, got 0"},
      {"adamw", "beta2", 1.0, "beta2 must be in [0, 1), got 1"},
      {"muon", "steps", 5.0, "steps must be an integer in [1, 64], got 5"},
      {"muon", "steps", std::int64_t{65}, "steps must be in [1, 64], got 65"},
      {"muon", "steps", std::int64_t{1} << 40, "steps must be in [1, 64]"},
      {"muon", "coefficients", std::string("clasic"), "did you mean \"classic\""},
      {"muon", "scale", std::string("orginal"), "did you mean \"original\""},
      {"muon", "nesterov", std::int64_t{1}, "nesterov must be true or false, got 1"},
      {"pion", "cutoff", 0.9, "cutoff must be in (0, 0.816496], got 0.9"},
      {"pion", "cutoff", std::string("noise"), "did you mean \"noise_edge\""},
      {"pion", "cutoff", false, "got false"},
      {"low_rank_muon", "rank", std::int64_t{0}, "rank must be >= 1, got 0"},
      {"low_pass_muon", "cutoff", 0.0, "cutoff must be in (0, 1], got 0"},
      {"sgd", "dampening", 1.5, "dampening must be in [0, 1], got 1.5"}};
  for (const Refusal& refusal : table) {
    Rule rule = make_rule(refusal.rule);
    const auto message =
        message_of([&] { set_rule_key(rule, refusal.key, refusal.value); });
    expect_says(message, refusal.says);
    for (const RuleKey& key : rule_keys(rule)) {  // nothing has changed
      EXPECT_EQ(key.value, get_rule_key(make_rule(refusal.rule), key.name));
    }
  }
  expect_says(message_of([] { make_rule("moun"); }), "did you mean \"muon\"");
  expect_says(message_of([] { get_rule_key(make_rule("sgd"), "beta1"); }),
              "Keys are: lr momentum");
}

TEST(Rule, ChecksCombinations) {
  PionRule both;
  both.cutoff = {Cutoff::Kind::kValue, 0.3};
  both.promotion_steps = 2;
  expect_says(message_of([&] { check_rule(both, "here"); }),
              "here: promotion_steps must be absent");
  PionRule many;
  many.promotion_steps = 6;
  expect_says(message_of([&] { check_rule(many, "here"); }), "at most steps, 5, got 6");
  PionRule low;
  low.cutoff = {Cutoff::Kind::kValue, 0.01};
  expect_says(message_of([&] { check_rule(low, "here"); }), "raise cutoff or steps");
  low.steps = 12;
  EXPECT_EQ(message_of([&] { check_rule(low, "here"); }), "");
  PionRule edge;
  edge.edge_factor = 3;
  expect_says(message_of([&] { check_rule(edge, "here"); }),
              "edge_factor must be 2 unless cutoff is \"noise_edge\", got 3");
  edge.cutoff.kind = Cutoff::Kind::kNoiseEdge;
  EXPECT_EQ(message_of([&] { check_rule(edge, "here"); }), "");
  MuonRule factor;
  factor.scale_factor = 2.0;
  expect_says(message_of([&] { check_rule(factor, "here"); }),
              "scale_factor must be absent for scale \"match_rms_adamw\"");
  SgdRule nesterov;
  nesterov.nesterov = true, nesterov.momentum = 0;
  expect_says(message_of([&] { check_rule(nesterov, "here"); }), "momentum > 0");
  AdamWRule nan;
  nan.beta1 = std::numeric_limits<double>::quiet_NaN();
  expect_says(message_of([&] { check_rule(nan, "here"); }),
              "here: beta1 must be in [0, 1), got nan");
}

TEST(NearestName, FindsTyposInitialsAndPartsAndNothingElse) {
  const std::vector<std::string> names = {"lr", "weight_decay", "momentum", "nesterov"};
  EXPECT_EQ(nearest_name("momentun", names), "momentum");
  EXPECT_EQ(nearest_name("mometnum", names), "momentum");
  EXPECT_EQ(nearest_name("learning_rate", names), "lr");
  EXPECT_EQ(nearest_name("wd", names), "weight_decay");
  EXPECT_EQ(nearest_name("decay", names), "weight_decay");
  EXPECT_EQ(nearest_name("Weight-Decay", names), "weight_decay");
  EXPECT_EQ(nearest_name("xyzzy", names), "");
  EXPECT_EQ(nearest_name("", names), "");
  EXPECT_EQ(nearest_name(std::string(1000, 'm'), names), "");
}

}  // namespace
}  // namespace pion
