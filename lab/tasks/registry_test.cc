// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <set>

#include "lab/run/task.h"

namespace pion::lab {
namespace {

TEST(Registry, NamesAreUniqueAndFound) {
  std::set<std::string> names;
  for (const TaskInfo& task : tasks()) {
    EXPECT_TRUE(names.insert(task.name).second) << task.name;
    EXPECT_EQ(&find_task(task.name), &task);
    EXPECT_FALSE(task.score.empty()) << task.name;
  }
}

TEST(Registry, AnUnknownNameGetsTheNearest) {
  try {
    find_task("forgeting");
    FAIL() << "must throw";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean \"forgetting\""),
              std::string::npos)
        << error.what();
  }
}

// Recipes of the control tasks load, and what they make measures what it is scored by.
TEST(Registry, ControlRecipesMakeTheirTasks) {
  for (const char* name :
       {"planted_low_rank", "planted_full_rank", "forgetting", "least_squares"}) {
    const Recipe recipe = Recipe::load(name);
    const TaskInfo& info = find_task(recipe.task());
    EXPECT_TRUE(info.make(recipe)->evaluate().contains(info.score)) << name;
    for (const std::string optimizer : {"adamw", "muon", "pion", "sgd"}) {
      EXPECT_TRUE(recipe.grids().contains(optimizer)) << name << " " << optimizer;
    }
  }
}

}  // namespace
}  // namespace pion::lab
