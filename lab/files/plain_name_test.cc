// SPDX-License-Identifier: Apache-2.0
#include "lab/files/plain_name.h"

#include <gtest/gtest.h>

#include "lab/files/weight_index.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

TEST(PlainName, FileNamesStayInTheirFolder) {
  for (const char* name :
       {"a", ".hidden", "model-00001-of-00002.safetensors", "...", "a b"})
    EXPECT_TRUE(is_file_name(name)) << name;
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("../x"),
        std::string("a/b"), std::string("/etc/passwd"), std::string("a\\b"),
        std::string("a\0b", 3), std::string(256, 'a')})
    EXPECT_FALSE(is_file_name(name)) << name;
}

TEST(PlainName, OptimizersOfAComparisonHaveNames) {
  for (const char* name : {"pion", "k0", "noise_edge", "muon-0.3", "_x", "a+b=c", "7"})
    EXPECT_EQ(message_of([&] { check_plain_name(name, "w"); }), "") << name;
  for (const std::string& name :
       {std::string(), std::string("../../x"), std::string("a/b"), std::string(".x"),
        std::string("-x"), std::string(".."), std::string("a\x1b[2J"),
        std::string("a\0b", 3), std::string("a b"), std::string("\xc3\xa9"),
        std::string(65, 'a')}) {
    const std::string said =
        message_of([&] { check_plain_name(name, "[compare.grid]"); });
    expect_says(said, "[compare.grid]: an optimizer's name must be");
    EXPECT_EQ(said.find('\x1b'), std::string::npos);
  }
}

TEST(PlainName, PathsOfAFileStayWithinItsFolder) {
  EXPECT_EQ(path_within("runs/c", "a"), "runs/c/a");
  EXPECT_EQ(path_within("runs/c", "x/../a/b"), "runs/c/a/b");
  for (const char* path : {"/etc/a", "../../a", "x/../../a", "/a"})
    EXPECT_EQ(path_within("runs/c", path), "runs/c/a") << path;
  EXPECT_EQ(path_within("runs/c", "../.."), "");
}

TEST(WeightIndex, NamesEachShardOnceAndOnlyFilesBesideIt) {
  EXPECT_EQ(parse_weight_index(
                R"({"weight_map": {"a": "y", "b": "x.safetensors", "c": "y"}})", "i"),
            (std::vector<std::string>{"x.safetensors", "y"}));
  for (const char* name : {"../x", "/x", "..", ".", "", "a/b", "x\\u0000"})
    expect_says(message_of([&] {
                  parse_weight_index(
                      std::string(R"({"weight_map": {"t": ")") + name + "\"}}", "i.json");
                }),
                "i.json: weight_map must name files of this folder, got \"");
  for (const std::string& json :
       {std::string("[]"), std::string("{}"), std::string(R"({"weight_map": {}})"),
        std::string(R"({"weight_map": {"a": 1e19}})"),
        R"({"weight_map":)" + std::string(100'000, '[')})
    expect_says(message_of([&] { parse_weight_index(json, "i.json"); }), "i.json: ");
}

}  // namespace
}  // namespace pion::lab
