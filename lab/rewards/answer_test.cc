// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/answer.h"

#include <gtest/gtest.h>

#include <ctime>
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
       {"37+48=85,85-29=56,\\boxed{56}", "56"},
       {"so $\\boxed 2$.", "2"},  // without braces
       {"so \\boxed 2.", "2"},
       {"so \\boxed2", "2"},
       {"\\(\\boxed -3\\)", "-3"},
       {"\\boxed{1} or \\boxed 2", "2"},
       {"\\boxed 1 or \\boxed{2}", "2"},
       {"{\\boxed 2}", "2"}},
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
              {"\\\\boxed 72", nullptr},
              {"\\boxed 2\\frac{1}{2}", nullptr},  // cut at the command, it would be 2
              {"\\boxed x{2}", nullptr},
              {"\\boxed .", nullptr},
              {"\\boxed ", nullptr},
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
              {"1{,}000 clips", "1{,}000"},
              {"it is \\frac12.", "\\frac12"},
              {"that makes 2\\frac{1}{2} cups", "2\\frac{1}{2}"},
              {"2 1/2 cups", "2 1/2"},
              {"about 1e3 m", "1e3"},
              {"so 10^3.", "10^3"},
              {"5\\times10^{3} m", "5\\times10^{3}"},
              {"3 / 4 of it", "3 / 4"},
              {"$3 million a year", "$3 million"},
              {"**72**", "72"},
              {"**72** and **5** more", "5"},
              {"_72_", "72"},
              {"it is...5", "5"},
              {"x = - 5", "- 5"},
              {"Choose:\n- 5", "5"},       // an item of a list
              {"Step 1\n1/2 cup", "1/2"},  // no mixed number over lines
              {"72 cm^2", "72"},
              {"72 m2 of CO2", "72"},
              {"5x^2", "5"},
              {"of a_1, 7", "7"},
              {"in 12 345 people", "345"},
              {"25 percent", "25 percent"},
              {"1/0", nullptr},
              {"5, or 2^{10}", nullptr},  // an earlier number is no answer either
              {"5 or 2\\pi", nullptr},
              {"5 or 2\\sqrt{3}", nullptr},
              {"\\sqrt[3]{2}", nullptr},
              {"\\frac{\\pi}{2}", nullptr},
              {"\\binom{5}{2}", nullptr},
              {"\\pm 5", nullptr},
              {"at 3:30", nullptr},
              {"on 3/4/2024", nullptr},
              {"5.1.2", nullptr},
              {"101_2", nullptr},
              {"(1+2)^2", nullptr},
              {"3 dozen", nullptr},
              {"10k", nullptr},
              {"1e999999999", nullptr},
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
  for (const char* e : {"(E)", "\\text{E}", "\\text{(E)}", "$E$", "**E**", "E.",
                        "\\textbf{(E)}", "(\\text{E})", "Answer: E"})
    EXPECT_TRUE(same_answer(e, "E")) << e;
  for (const char* e : {"D", "(D)", "e", "(E, F)", "EE", "[E]", ""})
    EXPECT_FALSE(same_answer(e, "E")) << e;
  EXPECT_TRUE(same_answer("\\left(1,2\\right)", "(1,2)"));
  EXPECT_TRUE(same_answer("\\left[ 0, \\infty \\right)", "[0,\\infty)"));
  EXPECT_FALSE(same_answer("\\left[1,2\\right]", "(1,2)"));
  EXPECT_TRUE(same_answer("x \\leftarrow y", "x\\leftarrow y"));
  EXPECT_FALSE(same_answer("x \\leftarrow y", "xarrow y"));
  EXPECT_TRUE(same_answer("\\dfrac{\\pi}{2}", "\\frac{\\pi}2"));
  EXPECT_TRUE(same_answer("\\frac12\\pi", "\\frac{1}{2}\\pi"));
  EXPECT_TRUE(
      same_answer("(3,\xE2\x88\x92"
                  "4)",
                  "(3,-4)"));
  EXPECT_TRUE(same_answer("x^{2}", "x^2"));
  EXPECT_FALSE(same_answer("x^{12}", "x^12"));
  EXPECT_FALSE(same_answer("$", "{}"));
  EXPECT_FALSE(same_answer("1,2", "12"));
  EXPECT_FALSE(same_answer("\\{1,2\\}", "(1,2)"));
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

// A quadratic scan of half a megabyte would take minutes.
TEST(Extraction, IsLinear) {
  const std::clock_t begin = std::clock();
  for (const std::string part :
       {"\\boxed{", "{",   "}",     "\\frac{",    "####",      "1,",      "-",       "\\",
        "1/",       "12",  "$",     "\\boxed{1}", "\\boxed 1", "\\sqrt{", "\\text{", "1 ",
        "10^{",     "1e9", "1,234", " ",          "~",         "x1"}) {
    std::string text;
    while (text.size() < (1 << 19)) text += part;
    last_boxed(text), after_hashes(text), last_number(text);
    text.resize(1 << 17);
    if (part != "12") same_answer(text, text + "x");  // products of digits are quadratic
  }
  EXPECT_LT((std::clock() - begin) / CLOCKS_PER_SEC, 20);
}

}  // namespace
}  // namespace pion::lab
