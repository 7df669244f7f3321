// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/outside_text.h"

#include <gtest/gtest.h>

#include <string>

#include "pion/optim/json_parser.h"
#include "pion/optim/routing.h"
#include "pion/optim/toml_parser.h"
#include "tests/thrown_message.h"

namespace pion {
namespace {

std::string repeated(const std::string& part, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += part;
  return text;
}

TEST(OutsideText, JsonDepthIsThatOfBracketsOutsideOfTexts) {
  for (const int depth : {1, 99, 100}) {
    const std::string list = repeated("[", depth) + repeated("]", depth);
    const std::string object =
        repeated("{\"a\":", depth - 1) + "{" + repeated("}", depth);
    EXPECT_FALSE(json_nests_deeper(list)) << depth;
    EXPECT_FALSE(json_nests_deeper(object)) << depth;
    EXPECT_TRUE(json_nests_deeper("[" + list + "]", depth)) << depth;
    EXPECT_NO_THROW(parse_json<nlohmann::json>(object)) << depth;
  }
  EXPECT_FALSE(json_nests_deeper("[\"" + repeated("[\\\"{", 500) + "\"]"));
  EXPECT_FALSE(json_nests_deeper(repeated("[],", 500)));
  EXPECT_TRUE(
      json_nests_deeper("[\"\\\\\"" + repeated(",[", 100)));  // a text \\ has ended
}

TEST(OutsideText, DeepJsonIsRefusedBeforeItIsParsed) {
  for (const std::string& part : {std::string("["), std::string("{\"a\":")}) {
    const std::string deep = repeated(part, 100'000);
    expect_says(message_of([&] { parse_json<nlohmann::json>(deep); }),
                "must nest at most 100 levels deep");
    EXPECT_TRUE(try_json<nlohmann::ordered_json>(deep).is_discarded());
    expect_says(message_of([&] { attention_shape_from_config(deep); }), "100 levels");
  }
  expect_says(message_of([] { parse_json<nlohmann::json>("{"); }), "must be JSON: ");
}

TEST(OutsideText, IntegersAreThoseThat64BitsHold) {
  const auto integer = [](const char* text) {
    return json_integer(nlohmann::json::parse(text));
  };
  EXPECT_EQ(integer("9223372036854775807"), 9223372036854775807);
  EXPECT_EQ(integer("-9223372036854775808"), std::numeric_limits<std::int64_t>::min());
  for (const char* text : {"1e19", "9223372036854775808", "18446744073709551615", "1.0",
                           "-1e300", "true", "null", "\"1\"", "[1]"})
    EXPECT_EQ(integer(text), std::nullopt) << text;
}

TEST(OutsideText, DeepTomlIsRefusedBeforeItIsParsed) {
  const std::string dotted = "a" + repeated(".a", 30'000);
  for (const std::string& text :
       {dotted + " = 1\n", "[" + dotted + "]\n", "[[" + dotted + "]]\n",
        "x = {" + dotted + " = 1}\n", "x = " + repeated("[", 30'000),
        "x = " + repeated("{a.b.c.d = ", 60), dotted + repeated(" . 'a'", 200)}) {
    EXPECT_TRUE(find_toml_flaw(text)) << text.substr(0, 80);
    EXPECT_THROW(parse_toml(text), toml::parse_error) << text.substr(0, 80);
    expect_says(message_of([&] { Routing::from_toml(text); }), "line 1, column ");
  }
}

// What stands in texts and comments is no depth, and no line adds to the next.
TEST(OutsideText, OrdinaryTomlIsParsed) {
  const std::string dots = repeated(".", 300), brackets = repeated("[{", 300);
  const std::string text =
      "\xef\xbb\xbf# " + brackets + dots + " \xc3\xa9\n" + "a = \"" + dots + "\\\"" +
      brackets + "\"\nb = '" + dots + "\\'\n" + "c = \"\"\"\n" + brackets + "\\\"\"\" " +
      dots + "\"\"\"\"\"\n" + "d = '''" + dots + "\n''" + brackets + "'''''\n" + "e = [" +
      repeated("0.5, ", 400) + "]\nf = [\n" + repeated("1.5,\n", 400) + "]\n" +
      "\"quoted.key\".'\xc3\xa9' = 1\n" + repeated("[[g]]\nh.i = 0.1\n", 300);
  const auto flaw = find_toml_flaw(text);
  EXPECT_FALSE(flaw) << flaw->what << " " << flaw->line << ":" << flaw->column;
  const toml::table table = parse_toml(text);
  EXPECT_EQ(table["a"].value<std::string>(), dots + "\"" + brackets);
  EXPECT_EQ(table["c"].value<std::string>(), brackets + "\"\"\" " + dots + "\"\"");
  EXPECT_EQ(table["d"].value<std::string>(), dots + "\n''" + brackets + "''");
  EXPECT_EQ(table["e"].as_array()->size(), 400u);
  EXPECT_EQ(table["quoted.key"]["\xc3\xa9"].value<int>(), 1);
  EXPECT_EQ(table["g"].as_array()->size(), 300u);
}

TEST(OutsideText, TomlHasOnlyAsciiOutsideOfTexts) {
  // a combining mark in a bare key, of which toml++ 3.3 reaches unreachable code
  const std::string bytes = "\x45\xcd\x88\x20\x48\x2a\x47\x0a";
  EXPECT_THROW(parse_toml(bytes), toml::parse_error);
  expect_says(
      message_of([&] { Routing::from_toml(bytes); }),
      "line 1, column 2: the text must be TOML: only texts and comments may hold");
  for (const std::string& text :
       {std::string("\xc3\xa9 = 1\n"), std::string("a = 1\n\x0b"),
        std::string("a\x7f = 1"), std::string("a = 1\0", 6),
        std::string("a = \"x\"\xff")})
    EXPECT_THROW(parse_toml(text), toml::parse_error) << text;
  EXPECT_EQ(find_toml_flaw("a = 1\nbc\xc3\xa9")->line, 2u);
  EXPECT_EQ(find_toml_flaw("a = 1\nbc\xc3\xa9")->column, 3u);
}

}  // namespace
}  // namespace pion
