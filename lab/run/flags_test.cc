// SPDX-License-Identifier: Apache-2.0
#include "lab/run/flags.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace pion::lab {
namespace {

const Recipe& planted() {
  static const Recipe recipe = Recipe::parse("task = \"planted_regression\"\n", "r.toml");
  return recipe;
}

std::string message_of(const TextPairs& flags) {
  try {
    resolve_flags(planted(), flags, {"--out"});
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Flags, PartsOwnWordsFromRecipeFlags) {
  const Words words =
      part_words({"--planted.steps", "3", "snake", "--out", "d", "--use-muon", "--seed=4",
                  "--lr=-1e-3", "--use-muon", "false", "--wandb"},
                 {{"--out", true}, {"--seed", true}, {"--resume", false}});
  EXPECT_EQ(words.own, (std::vector<std::string>{"snake", "--out", "d", "--seed=4"}));
  EXPECT_EQ(words.recipe, (TextPairs{{"planted.steps", "3"},
                                     {"use-muon", "true"},
                                     {"lr", "-1e-3"},
                                     {"use-muon", "false"},
                                     {"wandb", "true"}}));
}

TEST(Flags, AliasesNameRecipeKeys) {
  EXPECT_EQ(resolve_flags(planted(), {{"use-muon", "true"},
                                      {"muon-lr", "0.02"},
                                      {"aux-adam-lr", "3e-4"},
                                      {"muon_nesterov", "false"}}),
            (TextPairs{{"optimizer.matrices.rule", "muon"},
                       {"optimizer.matrices.lr", "0.02"},
                       {"optimizer.rest.lr", "3e-4"},
                       {"optimizer.matrices.nesterov", "false"}}));
  EXPECT_EQ(resolve_flags(planted(),
                          {{"lr", "1e-3"}, {"wandb", "true"}, {"planted.steps", "5"}}),
            (TextPairs{{"optimizer.matrices.lr", "1e-3"},
                       {"optimizer.rest.lr", "1e-3"},
                       {"track", "wandb"},
                       {"planted.steps", "5"}}));
  EXPECT_EQ(resolve_flags(planted(), {{"use-muon", "false"}}),
            (TextPairs{{"optimizer.matrices.rule", "adamw"}}));
}

TEST(Flags, AliasesOfATasksOwnTable) {
  for (const auto& [task, key] :
       {std::pair{"snake", "ppo.max_grad_norm"}, std::pair{"sft", "sft.max_grad_norm"},
        std::pair{"rlvr", "rl.max_grad_norm"}})
    EXPECT_EQ(
        resolve_flags(Recipe::parse("task = \"" + std::string(task) + "\"\n", "r.toml"),
                      {{"max-grad-norm", "0.5"}}),
        (TextPairs{{key, "0.5"}}));
  for (const auto& [task, key] :
       {std::pair{"rlvr", "rl.verifier"}, std::pair{"sft", "sft.verifier"}})
    EXPECT_EQ(
        resolve_flags(Recipe::parse("task = \"" + std::string(task) + "\"\n", "r.toml"),
                      {{"reward", "my_module:score"}}),
        (TextPairs{{key, "my_module:score"}}));
  EXPECT_NE(message_of({{"max-grad-norm", "1"}}).find("has no key max_grad_norm"),
            std::string::npos);
}

TEST(Flags, OverridesOfSeveralGlobsAreTaken) {
  const TextPairs flags = {{"optimizer.overrides", "a=matrix"},
                           {"optimizer.overrides", "b=rest"},
                           {"optimizer.overrides", "a=matrix"}};
  EXPECT_EQ(resolve_flags(planted(), flags), flags);
}

TEST(Flags, ContradictionsAndUnknownFlagsAreErrors) {
  const std::vector<std::pair<TextPairs, std::string>> cases = {
      {{{"muon-lr", "1"}}, "--muon-lr: needs --use-muon"},
      {{{"use-muon", "true"}, {"lr", "1"}}, "use --muon-lr and --aux-adam-lr"},
      {{{"use-muon", "true"}, {"optimizer", "pion"}}, "leave one out"},
      {{{"use-muon", "maybe"}}, "must be true or false"},
      {{{"d-model", "64"}}, "has no key model.d_model"},
      {{{"planted.stesp", "64"}}, "did you mean \"--planted.steps\"?"},
      {{{"ouut", "64"}}, "did you mean \"--out\"?"},
      {{{"use-mun", "true"}}, "did you mean \"--use-muon\"?"},
      {{{"seed", "1"}, {"seed", "2"}}, "leave one out"},
      {{{"optimizer.overrides", "w*=matrix"}, {"optimizer.overrides", "w*=rest"}},
       "sets optimizer.overrides to w*=rest, another flag to w*=matrix; leave one out"},
      {{{"planted.steps", "true"}}, "--planted.steps: needs a value"},  // none was given
      {{{"lr", "true"}}, "--lr: needs a value"},
      {{{"optimizer.schedule", "true"}}, "--optimizer.schedule: needs a value"},
  };
  for (const auto& [flags, wanted] : cases) {
    const std::string message = message_of(flags);
    EXPECT_NE(message.find(wanted), std::string::npos) << wanted << "\n" << message;
  }
}

}  // namespace
}  // namespace pion::lab
