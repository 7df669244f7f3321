// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/answer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace pion::lab {
namespace {

struct Case {
  std::string text;
  const char* answer;  // nullptr: none
};

template <class Extract>
void expect_all(const std::vector<Case>& cases, Extract extract) {
  for (const Case& c : cases) {
    const auto found = extract(c.text);
    if (c.answer == nullptr) {
      EXPECT_FALSE(found) << c.text << " gave " << found.value_or("");
      continue;
    }
    ASSERT_TRUE(found) << c.text;
    EXPECT_EQ(*found, c.answer) << c.text;
  }
}

TEST(LastBoxed, BalancesBraces) {
  expect_all(
      {{"\\boxed{72}", "72"},
       {"so the answer is $\\boxed{\\frac{3}{4}}$.", "\\frac{3}{4}"},
       {"\\boxed{\\sqrt{\\frac{a}{b}}} done", "\\sqrt{\\frac{a}{b}}"},
       {"\\boxed{1} and then \\boxed{2}", "2"},
       {"\\boxed{1} \\fbox{2}", "2"},
       {"\\boxed {72}", "72"},
       {"\\boxed{ 72 }", "72"},
       {"\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"},
       {"\\boxed{\\{1, 2}", "\\{1, 2"},        // an escaped brace opens nothing
       {"\\boxed{1\\}} x", "1\\}"},            // and closes nothing
       {"\\boxed{a \\\\{b}} c", "a \\\\{b}"},  // \\ is a line break, the brace is real
       {"\\boxed{\\text{Evelyn}}", "\\text{Evelyn}"},
       {"\\boxed{\\boxed{5}}", "5"},
       {"\\boxed{5} \\boxed{6", "5"},  // cut off: the last whole one
       {"\\boxed{5 then \\boxed{6}", "6"},
       {"{ } } \\boxed{7}", "7"},
       {"{{{ \\boxed{7}", "7"},
       {"37+48=85,85-29=56,\\boxed{56}", "56"}},
      last_boxed);
}

TEST(LastBoxed, IsNoneWithout) {
  expect_all({{"", nullptr},
              {"72", nullptr},
              {"\\boxed", nullptr},
              {"\\boxed{", nullptr},
              {"\\boxed{72", nullptr},
              {"\\boxed{}", nullptr},
              {"\\boxed{ \n}", nullptr},
              {"boxed{72}", nullptr},
              {"\\\\boxed{72}", nullptr},  // a line break and the word
              {"\\boxed 72", nullptr},
              {"\\boxedx{72}", nullptr},
              {"}{", nullptr},
              {"\\", nullptr}},
             last_boxed);
}

TEST(AfterHashes, IsTheRestOfTheLine) {
  expect_all({{"48/2 = 24\n48+24 = 72\n#### 72", "72"},
              {"#### 72\n", "72"},
              {"####72 \nmore", "72"},
              {"#### 1\n#### 2", "2"},
              {"##### 2", "2"},
              {"#### $1,000", "$1,000"},
              {"####", nullptr},
              {"#### \n72", nullptr},
              {"### 72", nullptr},
              {"", nullptr}},
             after_hashes);
}

TEST(LastNumber, InRunningText) {
  expect_all({{"I get 72.", "72"},
              {"The total is $1,234.50.", "$1,234.50"},
              {"They cost \\$18 each", "\\$18"},
              {"of 20 clips, 5 are left", "5"},
              {"3/4 of it", "3/4"},
              {"it is \\frac{3}{4} then", "\\frac{3}{4}"},
              {"it is -\\frac{3}{4}", "-\\frac{3}{4}"},
              {"that is 25%", "25%"},
              {"that is 25\\% off", "25\\%"},
              {"x = -5", "-5"},
              {"(-5)", "-5"},
              {"85-29", "29"},
              {"85 - 29", "29"},
              {"12-37=-25", "-25"},
              {"it drops by \xE2\x88\x92"
               "5 degrees",
               "\xE2\x88\x92"
               "5"},
              {"a: 1,2,3", "3"},
              {"3,4567", "4567"},
              {"37+48=85,85-29=56", "56"},
              {"37+48=85,85-29=056,", "056"},
              {".5", ".5"},
              {"5.", "5"},
              {"1/0", nullptr},
              {"none", nullptr},
              {"", nullptr},
              {"-", nullptr}},
             last_number);
}

TEST(SameAnswer, TextWhereThereIsNoNumber) {
  EXPECT_TRUE(same_answer("(1, 2)", "(1,2)"));
  EXPECT_TRUE(same_answer("\\frac{\\pi}{2}", "\\frac{\\pi}{2}"));
  EXPECT_TRUE(same_answer("Evelyn", " Evelyn"));
  EXPECT_FALSE(same_answer("(2,1)", "(1,2)"));
  EXPECT_FALSE(same_answer("5", "five"));
  EXPECT_FALSE(same_answer("5x", "5"));
  EXPECT_TRUE(same_answer("1,234", "1234"));
}

// As GSM8K and MATH state their references, and as models answer them.
TEST(SameAnswer, LikeRealAnswers) {
  const std::vector<std::pair<const char*, const char*>> right = {
      {"72", "72 clips"},
      {"10", "$10"},
      {"10", "\\$10.00"},
      {"5", "5 dollars"},
      {"42", "42."},
      {"624", "624 pages"},
      {"1,450", "1450"},
      {"25", "25\\%"},
      {"0.75", "\\frac{3}{4}"},
      {"110", "110.0"},
      {"-3",
       "\xE2\x88\x92"
       "3"},
      {"120,000", "$120{,}000"},
      {"\\frac{9}{4}", "2.25"},
      {"\\dfrac{1}{2}", "1/2"},
      {"90^\\circ", "90"},
      {"2\\frac{1}{4}", "9/4"},
      {"\\text{even}", "\\text{even}"},
      {"16 \\text{ cm}^2", "16"},
      {"(3,-4)", "(3, -4)"},
      {"10\\%", "10"}};
  for (const auto& [reference, answer] : right)
    EXPECT_TRUE(same_answer(answer, reference)) << reference << " " << answer;
  const std::vector<std::pair<const char*, const char*>> wrong = {
      {"72", "72 million"}, {"10", "100"}, {"5", "5x"},          {"0.75", "75"},
      {"1/3", "0.333"},     {"-3", "3"},   {"(3,-4)", "(-4,3)"}, {"12", "1/2"},
      {"12", "1 2"},        {"12", ""}};
  for (const auto& [reference, answer] : wrong)
    EXPECT_FALSE(same_answer(answer, reference)) << reference << " " << answer;
}

// A quadratic scan of a megabyte would take minutes.
TEST(Extraction, IsLinear) {
  const auto begin = std::chrono::steady_clock::now();
  for (const std::string part : {"\\boxed{", "{", "}", "\\frac{", "####", "1,", "-", "\\",
                                 "1/", "12", "$", "\\boxed{1}"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += part;
    last_boxed(text), after_hashes(text), last_number(text);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

}  // namespace
}  // namespace pion::lab
