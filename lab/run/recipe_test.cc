// SPDX-License-Identifier: Apache-2.0
#include "lab/run/recipe.h"

#include <gtest/gtest.h>

#include <random>
#include <stdexcept>

namespace pion::lab {
namespace {

const std::string kRecipe = R"(# a comment
task = "planted_regression"
seed = 7

[planted]
steps = 30
noise = 2

[optimizer.matrices]
rule = "pion"
lr = 0.02
cutoff = 0.2

[optimizer.rest]
rule = "adamw"
lr = 3e-4

[optimizer.overrides]
"z*" = "rest"
"a*" = "matrix"

[compare.grid]
adamw = [1e-4, 3e-4]
sharp = [1e-3]

[compare.settings.sharp]
rule = "pion"
promotion_steps = 0
)";

template <class F>
std::string message_of(F action) {
  try {
    action();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  text.replace(text.find(from), from.size(), to);
  return text;
}

TEST(Recipe, ReadsValuesRulesAndDefaults) {
  const Recipe recipe = Recipe::parse(kRecipe, "r.toml");
  EXPECT_EQ(recipe.task(), "planted_regression");
  EXPECT_EQ(recipe.integer("seed"), 7);
  EXPECT_EQ(recipe.integer("planted.steps"), 30);
  EXPECT_EQ(recipe.number("planted.noise"), 2.0);  // an integer where a number is wanted
  EXPECT_EQ(recipe.integer("threads"), 1);
  EXPECT_EQ(rule_name(recipe.matrices()), "pion");
  EXPECT_EQ(learning_rate(recipe.matrices()), 0.02);
  EXPECT_EQ(learning_rate(recipe.rest()), 3e-4);
  // the file's order, not the alphabet's: the first match wins
  EXPECT_EQ(recipe.overrides(), (TextPairs{{"z*", "rest"}, {"a*", "matrix"}}));
  EXPECT_EQ(recipe.grids().at("adamw"), (std::vector<double>{1e-4, 3e-4}));
}

TEST(Recipe, ItsOwnTextGivesTheSameRecipe) {
  const Recipe recipe = Recipe::parse(kRecipe, "r.toml");
  const std::string text = recipe.to_toml();
  const Recipe again = Recipe::parse(text, "resolved.toml");
  EXPECT_EQ(again.to_toml(), text);
  for (const std::string& key : recipe.key_names()) {
    if (key.rfind("compare.grid", 0) == 0 || key == "optimizer.overrides") continue;
    EXPECT_EQ(again.value_text(key), recipe.value_text(key)) << key;
  }
}

TEST(Recipe, NamesFileLineAndRemedy) {
  struct Case {
    std::string from, to, wanted;
  };
  const std::vector<Case> cases = {
      {"seed = 7", "sede = 7", "r.toml:3: unknown key \"sede\"; did you mean \"seed\"?"},
      {"steps = 30", "step = 30",
       "r.toml:6: unknown key \"step\" in [planted]; did you mean \"planted.steps\"?"},
      {"lr = 0.02", "learning_rat = 0.02",
       "r.toml:11: unknown key \"learning_rat\" in [optimizer.matrices]"},
      {"lr = 3e-4", "ll = 3e-4", "did you mean \"lr\"?"},
      {"[planted]", "[plantde]", "r.toml:5: unknown table [plantde]"},
      {"steps = 30", "steps = \"many\"",
       "r.toml:6: planted.steps: must be an integer, got text \"many\""},
      {"steps = 30", "steps = 1.5",
       "r.toml:6: planted.steps: must be an integer, got 1.5"},
      {"steps = 30", "steps = 0",
       "r.toml:6: planted.steps: must be in [1, 1000000000], got 0"},
      {"noise = 2", "noise = nan", "r.toml:7: planted.noise: must be"},
      {"noise = 2", "noise = 1979-05-27",
       "r.toml:7: planted.noise: must be a number, got a date or time"},
      {"lr = 0.02", "lr = -1", "r.toml:11: "},
      {"cutoff = 0.2", "cutoff = 7", "r.toml:12: "},
      {"cutoff = 0.2", "cutoff = 0.2\npromotion_steps = 0", "r.toml: "},
      {"rule = \"pion\"", "rule = \"pino\"",
       "r.toml:10: unknown rule \"pino\" in [optimizer.matrices]; did you mean "
       "\"pion\"?"},
      {"rule = \"adamw\"", "rule = \"muon\"", "rule must be adamw or sgd"},
      {"planted_regression", "planted_regresion", "r.toml:2: "},
      {"planted_regression", "planted_regresion", "did you mean \"planted_regression\"?"},
      {"task = ", "tsk = ", "r.toml: needs a key \"task\""},
      {"seed = 7", "seed = ", "r.toml:3: is no TOML"},
      {"seed = 7", "seed = 7\nseed = 8", "is no TOML"},
      {"\"matrix\"", "\"matrx\"", "did you mean \"matrix\"?"},
      {"adamw = [1e-4, 3e-4]", "adamw = [1e-4, -1]",
       "must be one learning rate >= 0 or more"},
      {"adamw = [1e-4, 3e-4]", "adam = [1e-4]",
       "unknown optimizer \"adam\"; did you mean \"adamw\"?"},
      {"promotion_steps = 0", "promotion_stepz = 0", "did you mean \"promotion_steps\"?"},
  };
  for (const Case& each : cases) {
    const std::string text = replaced(kRecipe, each.from, each.to);
    const std::string message = message_of([&] { Recipe::parse(text, "r.toml"); });
    EXPECT_NE(message.find(each.wanted), std::string::npos) << each.to << "\n" << message;
  }
}

// What would overflow the stack, lead a parser astray or become a path.
TEST(Recipe, RefusesWhatNoRecipeHolds) {
  std::string dotted = "a";
  for (int i = 0; i < 30'000; ++i) dotted += ".a";
  const auto message = [](const std::string& more) {
    return message_of([&] { Recipe::parse(kRecipe + more, "r.toml"); });
  };
  EXPECT_NE(message("\n" + dotted + " = 1\n").find("nest too deep"), std::string::npos);
  EXPECT_NE(message("\nx = " + std::string(30'000, '[')).find("nest too deep"),
            std::string::npos);
  const std::string letters = "\x45\xcd\x88\x20\x48\x2a\x47\x0a";
  EXPECT_EQ(message_of([&] {
              Recipe::parse(letters, "r.toml");
            }).find("r.toml:1: is no TOML: only texts and comments"),
            0u);
  for (const char* name : {"../../x", "/tmp/x", ".x", "a/b", "a\\u001b[2J", ""}) {
    const std::string quoted = "\"" + std::string(name) + "\"";
    const std::string settings =
        message("\n[compare.settings." + quoted + "]\nrule = \"muon\"\n");
    const std::string in_grid = "[compare.grid]\n" + quoted + " = [1]\n";
    const std::string grid = message_of(
        [&] { Recipe::parse(replaced(kRecipe, "[compare.grid]", in_grid), "r.toml"); });
    for (const std::string& said : {settings, grid})
      EXPECT_NE(said.find("an optimizer's name must be"), std::string::npos)
          << name << "\n"
          << said;
  }
  Recipe recipe = Recipe::parse(kRecipe, "r.toml");
  EXPECT_NE(message_of([&] { recipe.set("compare.grid.a/b", "1"); }).find("name must be"),
            std::string::npos);
}

TEST(Recipe, SetsWhatFlagsSay) {
  Recipe recipe = Recipe::parse(kRecipe, "r.toml");
  const Recipe before = recipe;
  recipe.set("planted.steps", "1e3");
  recipe.set("optimizer.matrices.cutoff", "noise_edge");
  recipe.set("optimizer.overrides", "*.gate=rest");
  EXPECT_EQ(recipe.integer("planted.steps"), 1000);
  EXPECT_EQ(recipe.overrides().front(),
            (std::pair<std::string, std::string>("*.gate", "rest")));
  EXPECT_EQ(before.integer("planted.steps"), 30);  // copies are independent
  EXPECT_NE(message_of([&] {
              recipe.set("planted.stepz", "1");
            }).find("did you mean \"planted.steps\"?"),
            std::string::npos);
  EXPECT_NE(message_of([&] { recipe.set("seed", "-1"); }).find("seed: must be"),
            std::string::npos);
  EXPECT_NE(message_of([&] { recipe.set("task", "forgetting"); }).find("--task"),
            std::string::npos);
}

TEST(Recipe, ANewRuleKeepsWhatItSharesAndRefusesWhatItLacks) {
  Recipe recipe =
      Recipe::parse(replaced(kRecipe, "cutoff = 0.2", "momentum = 0.8"), "r.toml");
  recipe.set_all({{"optimizer.matrices.rule", "muon"}});
  EXPECT_EQ(std::get<MuonRule>(recipe.matrices()).momentum, 0.8);
  EXPECT_EQ(std::get<MuonRule>(recipe.matrices()).lr, 0.02);
  EXPECT_TRUE(std::get<MuonRule>(recipe.matrices()).nesterov);  // its own default
  Recipe filtered = Recipe::parse(kRecipe, "r.toml");
  const std::string message =
      message_of([&] { filtered.set("optimizer.matrices.rule", "muon"); });
  EXPECT_NE(message.find("sets cutoff = 0.2, which rule \"muon\" does not have"),
            std::string::npos)
      << message;
}

// Whatever the value, the order, and the way that the flag took.
TEST(Recipe, APresetLeavesNoRuleToBeSet) {
  const std::string plain =
      "task = \"planted_regression\"\n[compare.settings.sharp]\nrule = "
      "\"pion\"\ncutoff = 0.1\n";
  const std::string preset = plain + "[optimizer]\npreset = \"paper-rlvr\"\n";
  const std::string usual =
      Recipe::parse(plain, "r.toml").value_text("optimizer.matrices.lr");
  for (const TextPairs& flags : {TextPairs{{"optimizer.matrices.lr", usual}},
                                 TextPairs{{"optimizer.rest.lr", "1"}},
                                 TextPairs{{"optimizer.matrices.rule", "pion"}},
                                 Recipe::parse(plain, "r.toml").variant("sharp")}) {
    Recipe recipe = Recipe::parse(preset, "r.toml");
    const std::string wanted = "preset \"paper-rlvr\" sets every rule itself; leave out";
    const std::string message = message_of([&] { recipe.set_all(flags); });
    EXPECT_NE(message.find(wanted), std::string::npos) << message;
    Recipe before = Recipe::parse(plain, "r.toml");
    TextPairs both = flags;
    both.emplace_back("optimizer.preset", "paper-rlvr");
    const std::string other = message_of([&] { before.set_all(both); });
    EXPECT_NE(other.find(wanted), std::string::npos) << other;
  }
  const std::string file = message_of(
      [&] { Recipe::parse(preset + "[optimizer.matrices]\nlr = 0.125\n", "r.toml"); });
  EXPECT_NE(file.find("r.toml: optimizer.matrices.lr: preset"), std::string::npos)
      << file;
  // what a run saves holds every rule's defaults
  Recipe recipe = Recipe::parse(plain, "r.toml");
  recipe.set_all({{"optimizer.preset", "paper-rlvr"}, {"seed", "3"}});
  EXPECT_EQ(Recipe::parse(recipe.to_toml(), "saved.toml").to_toml(), recipe.to_toml());
}

TEST(Recipe, RefusesKeysWithoutEffectAndEmptyGrids) {
  Recipe recipe = Recipe::parse(kRecipe, "r.toml");
  const std::string factor =
      message_of([&] { recipe.set_all({{"optimizer.final_lr_factor", "0.1"}}); });
  EXPECT_NE(factor.find("optimizer.schedule is \"constant\""), std::string::npos)
      << factor;
  EXPECT_NO_THROW(recipe.set_all({{"optimizer.schedule", "linear"}}));
  for (const char* rates : {"", "-1", "nan"}) {
    const std::string grid = message_of([&] { recipe.set("compare.grid.pion", rates); });
    EXPECT_NE(grid.find("compare.grid.pion: must be"), std::string::npos) << grid;
  }
}

// Whatever flags are taken, the recipe that a run leaves can be read, and is the same.
TEST(Recipe, FlagsThatAreTakenMakeARecipeThatCanBeReadAgain) {
  for (const TextPairs& flags :
       {TextPairs{{"optimizer.overrides", "a*=rest"}},  // in the place of the file's
        TextPairs{{"optimizer.overrides", "c*=muon"}, {"optimizer.overrides", "c*=muon"}},
        TextPairs{{"compare.grid.sharp", "1e-3"}, {"compare.grid.sgd", "0.1,0.2"}},
        TextPairs{{"compare.optimizers", "a \"quoted\" \\ name\t\u00e9\x7f\n"}}}) {
    Recipe recipe = Recipe::parse(kRecipe, "r.toml");
    recipe.set_all(flags);
    EXPECT_NO_THROW(recipe.check_file());
    EXPECT_EQ(Recipe::parse(recipe.to_toml(), "saved.toml").to_toml(), recipe.to_toml());
  }
  Recipe recipe = Recipe::parse(kRecipe, "r.toml");
  recipe.set("optimizer.overrides", "a*=rest");
  EXPECT_EQ(recipe.overrides(), (TextPairs{{"a*", "rest"}, {"z*", "rest"}}));
}

TEST(Recipe, FlagsThatNoFileCouldHoldAreRefused) {
  Recipe recipe = Recipe::parse(kRecipe, "r.toml");
  const auto refused = [&](const char* key, const std::string& text) {
    return message_of([&] { recipe.set(key, text); });
  };
  EXPECT_NE(refused("compare.grid.nope", "1e-3").find("unknown optimizer \"nope\""),
            std::string::npos);
  EXPECT_NE(refused("compare.grid.sharq", "1e-3").find("did you mean \"sharp\"?"),
            std::string::npos);
  EXPECT_NE(refused("optimizer.overrides", "*.w=nonsense").find("must be \"matrix\""),
            std::string::npos);
  for (const char* key : {"compare.optimizers", "optimizer.overrides"})
    EXPECT_NE(refused(key, "models/\xff=rest").find("must be UTF-8"), std::string::npos)
        << key;
  // a combination that only the file shows: settings of an optimizer that is not chosen
  Recipe other = Recipe::parse(
      "task = \"planted_regression\"\n[optimizer]\nschedule = \"linear\"\n"
      "[compare.settings.slow]\nrule = \"pion\"\n\"optimizer.final_lr_factor\" = 0.5\n",
      "r.toml");
  other.set_all({{"optimizer.schedule", "constant"}});
  const std::string message = message_of([&] { other.check_file(); });
  EXPECT_NE(message.find("could not be read again: recipe.toml:"), std::string::npos)
      << message;
}

TEST(Recipe, MessagesQuoteLongTextsShortened) {
  Recipe recipe = Recipe::parse(kRecipe, "r.toml");
  const std::string text(126'000, 'x');
  for (const std::string& key :
       {std::string("planted.steps"), std::string("optimizer.schedule"),
        std::string("optimizer.overrides"), std::string("compare.grid.pion"), text}) {
    const std::string message = message_of([&] { recipe.set(key, text); });
    EXPECT_LT(message.size(), 900u) << key.substr(0, 20);
    EXPECT_NE(message.find("xx[... 125800 bytes ...]xx"), std::string::npos) << message;
  }
  const std::string toml = "task = \"planted_regression\"\nseed = \"" + text + "\"\n";
  const std::string file = message_of([&] { Recipe::parse(toml, "r.toml"); });
  EXPECT_NE(file.find("xx[... 125800 bytes ...]xx"), std::string::npos) << file;
}

TEST(Recipe, AVariantIsItsRuleAndItsSettings) {
  const Recipe recipe = Recipe::parse(kRecipe, "r.toml");
  EXPECT_EQ(recipe.variant("muon"), (TextPairs{{"optimizer.matrices.rule", "muon"}}));
  EXPECT_EQ(recipe.variant("sharp"),
            (TextPairs{{"optimizer.matrices.rule", "pion"},
                       {"optimizer.matrices.promotion_steps", "0"}}));
}

// Mutations of a valid recipe: each is a recipe, or refused with std::invalid_argument.
TEST(Recipe, SurvivesMutations) {
  std::mt19937 random(20261122);
  const std::string spice = "[]{}\"'=.#\n\\,0123456789eE+-_ \t\xff";
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string text = kRecipe;
    for (unsigned change = random() % 5 + 1; change > 0; --change) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = spice[random() % spice.size()];
          break;
        case 1:
          text.erase(at, random() % 6 + 1);
          break;
        default:
          text.insert(at, text.substr(random() % text.size(), random() % 24));
          break;
      }
    }
    try {
      const Recipe recipe = Recipe::parse(text, "fuzz.toml");
      Recipe::parse(recipe.to_toml(), "fuzz again");
    } catch (const std::invalid_argument&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace pion::lab
