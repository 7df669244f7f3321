// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/number.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "lab/rewards/answer.h"

namespace pion::lab {
namespace {

struct Pair {
  const char *a, *b;
};

TEST(Number, EqualWrittenInManyWays) {
  const std::vector<Pair> pairs = {
      {"72", "72"},
      {" 72\n", "72"},
      {"072", "72"},
      {"72.", "72"},
      {"72.0", "72"},
      {"72.00", "72"},
      {"+72", "72"},
      {".5", "0.5"},
      {"0.50", "1/2"},
      {"-.5", "-1/2"},
      {"-0", "0"},
      {"-0.0", "0"},
      {"0/5", "0"},
      // thousands
      {"1,234", "1234"},
      {"1,234,567.89", "1234567.89"},
      {"1{,}234", "1234"},
      {"10,\\!000", "10000"},
      {"10\\!,000", "10000"},
      {"1\\,234\\,567", "1234567"},
      {"1~234", "1234"},
      {"1\xE2\x80\x89"
       "000",
       "1000"},  // thin, no-break, narrow no-break space
      {"1\xC2\xA0"
       "000",
       "1000"},
      {"1\xE2\x80\xAF"
       "000\xE2\x80\xAF"
       "000.5",
       "1000000.5"},
      {"$1,000,000", "1000000"},
      // signs
      {"\xE2\x88\x92"
       "5",
       "-5"},
      {"\xE2\x80\x93"
       "5",
       "-5"},
      {"- 5", "-5"},
      {"$-5", "-5"},
      {"-$5", "-5"},
      {"-\\$5", "-5"},
      // currency and wrappers
      {"$18", "18"},
      {"\\$18", "18"},
      {"$18$", "18"},
      {"\\$18.00", "18"},
      {"$\\$18$", "18"},
      {"\xC2\xA3"
       "5",
       "5"},
      {"\xE2\x82\xAC 5", "5"},
      {"\\(42\\)", "42"},
      {"\\[42\\]", "42"},
      {"$$42$$", "42"},
      {"\\text{42}", "42"},
      {"{42}", "42"},
      {"x = 42", "42"},
      {"$x=42$", "42"},
      {"3 + 4 = 7", "7"},
      // fractions
      {"3/4", "0.75"},
      {"6/8", "3/4"},
      {"-3/4", "-0.75"},
      {"3 / 4", "3/4"},
      {"\\frac{3}{4}", "3/4"},
      {"\\dfrac{3}{4}", "0.75"},
      {"\\tfrac{3}{4}", "0.75"},
      {"\\cfrac{3}{4}", "0.75"},
      {"\\frac34", "3/4"},
      {"\\frac{3}4", "3/4"},
      {"\\frac3{4}", "3/4"},
      {"\\frac 3 4", "3/4"},
      {"\\frac{-3}{4}", "-3/4"},
      {"\\frac{3}{-4}", "-3/4"},
      {"-\\frac{-3}{4}", "3/4"},
      {"\\frac{1,000}{3}", "1000/3"},
      {"\\frac{ 3 }{ 4 }", "3/4"},
      {"$\\frac{14}{3}$", "14/3"},
      {"\\frac{1.5}{3}", "0.5"},
      {"2 1/2", "2.5"},
      {"2\\frac{1}{2}", "5/2"},
      {"2 \\frac{1}{2}", "2.5"},
      {"-2\\frac12", "-2.5"},
      {"2\\,\\dfrac{1}{2}", "2.5"},
      // percent
      {"25%", "25%"},
      {"25\\%", "25%"},
      {"25 %", "0.25"},
      {"25\\%", "25"},
      {"25", "25 percent"},
      {"25%", "1/4"},
      {"0.5%", "0.005"},
      {"33\\frac{1}{3}\\%", "33\\frac13"},
      {"150%", "1.5"},
      // units
      {"72 clips", "72"},
      {"72 clips.", "72"},
      {"18 dollars per day", "18"},
      {"72 \\text{ clips}", "72"},
      {"72\\text{ cm}^2", "72"},
      {"72\\ \\mathrm{cm}^{2}", "72"},
      {"72\\,\\text{m}", "72"},
      {"90^\\circ", "90"},
      {"90^{\\circ}", "90"},
      {"90\xC2\xB0", "90"},
      {"90 degrees", "90"},
      {"1/2 cup", "0.5"},
      {"$5 \\text{ cents}$", "5"},
      {"\\frac{1}{2} \\text{ inches}", "0.5"},
      {"5 m", "5"},
      {"5cm", "5"},
      {"5 m^2", "5"},
      {"60 km/h", "60"},
      {"5 sq. ft.", "5"},
      {"20\xC2\xB0"
       "C",
       "20"},
      {"20^\\circ\\text{C}", "20"},
      {"73 (seventy-three)", "73"},
      {"1,500 (one thousand five hundred)", "1500"},
      {"73 (clips in all)", "73"},
      // powers of ten
      {"1e3", "1000"},
      {"1E+3", "1000"},
      {"1.5e-3", "0.0015"},
      {"10^3", "1000"},
      {"10^{3}", "1000"},
      {"10^{-2}", "0.01"},
      {"-10^3", "-1000"},
      {"10**3", "1000"},
      {"10\xC2\xB3", "1000"},  // a superscript 3
      {"5\\times10^{3}", "5000"},
      {"5 \\times 10^3", "5000"},
      {"5\\cdot 10^{-3}", "0.005"},
      {"2.5\xC3\x97"
       "10^3",
       "2500"},  // U+00D7
      {"2.5 x 10^3", "2500"},
      {"\\frac{1}{10^3}", "0.001"},
      {"1e1000", "10e999"},
      // scales and fractions of one character
      {"3 million", "3000000"},
      {"$2.5 billion", "2500000000"},
      {"\xC2\xBD", "0.5"},
      {"2\xC2\xBE", "2.75"},
      {"-\xE2\x85\x94", "-2/3"},
      // currency behind
      {"18\xE2\x82\xAC", "18"},
      {"18 \xE2\x82\xAC", "18"},
      {"18\\,\\$", "18"},
      {"USD 18", "18"},
      {"18 USD", "18"},
      // Markdown, labels, the end of a sentence
      {"**73**", "73"},
      {"`73`", "73"},
      {"73**", "73"},
      {"18,", "18"},
      {"Answer: 73", "73"},
      {"**Final answer:** $73$.", "73"},
      {"The answer is 73.", "73"},
      {"$\\boxed{73}$", "73"},
      {"\\mathbf{73}", "73"},
      {"x = \\boxed{\\text{73}}", "73"},
      {"$18 dollars", "18"},
  };
  for (const Pair& pair : pairs) {
    const auto a = parse_number(pair.a), b = parse_number(pair.b);
    ASSERT_TRUE(a) << pair.a;
    ASSERT_TRUE(b) << pair.b;
    EXPECT_TRUE(equal(*a, *b)) << pair.a << " = " << pair.b;
    EXPECT_TRUE(equal(*b, *a)) << pair.b << " = " << pair.a;
  }
}

TEST(Number, UnequalEvenIfOnlyJust) {
  const std::vector<Pair> pairs = {
      {"72", "-72"},
      {"72", "73"},
      {"72", "7.2"},
      {"0.1", "0.10000000000000000000001"},
      {"1/3", "0.3333333333333333333"},
      {"1/3", "0.33"},
      {"\\frac{14}{3}", "4.67"},
      {"123456789012345678901234567890", "123456789012345678901234567891"},
      {"9007199254740993", "9007199254740992"},  // equal as doubles
      {"50%", "0.005"},
      {"0.5%", "50"},
      {"25%", "26"},
      {"25%", "24%"},
      {"-25%", "25"},
      {"1,234", "1.234"},
      {"2 1/2", "2.25"},
      {"21/2", "2 1/2"},
      {"1000", "100"},
      {"1000000000", "1"},
      {"1000000001", "1000000000"},
      {"1e3", "3"},
      {"1e3", "13"},
      {"10^3", "3"},
      {"10^3", "103"},
      {"10^{-2}", "-100"},
      {"\\frac34", "34"},
      {"\\frac12", "12"},
      {"2\\frac{1}{2}", "1/2"},
      {"3 million", "3"},
      {"1e1000", "1e999"},
  };
  for (const Pair& pair : pairs) {
    const auto a = parse_number(pair.a), b = parse_number(pair.b);
    ASSERT_TRUE(a) << pair.a;
    ASSERT_TRUE(b) << pair.b;
    EXPECT_FALSE(equal(*a, *b)) << pair.a << " != " << pair.b;
    EXPECT_FALSE(equal(*b, *a)) << pair.b << " != " << pair.a;
  }
}

TEST(Number, WhatIsNone) {
  for (const char* text : {"",
                           " ",
                           "-",
                           "+",
                           ".",
                           "$",
                           "$$",
                           "%",
                           "x",
                           "five",
                           "x + 1",
                           "5x",
                           "2x = ",
                           "2 pi",
                           "5 x",
                           "2\\pi",
                           "\\sqrt{2}",
                           "2\\sqrt{3}",
                           "1,23",
                           "12,34,567",
                           "1,2345",
                           "1,000,00",
                           "1..2",
                           "1.2.3",
                           "3/0",
                           "\\frac{1}{0}",
                           "\\frac{1}",
                           "\\frac{a}{2}",
                           "\\frac{1}{2",
                           "1/2/3",
                           "--5",
                           "5 and 6",
                           "3:00",
                           "3-4",
                           "(1, 2)",
                           "[1, 2]",
                           "0x10",
                           "\\frac",
                           "\\frac{\\frac{1}{2}}{3}",
                           "5!",
                           "half",
                           "12 dozen",
                           "\\text{}",
                           "72 clips2",
                           "1 2",
                           "\xE2\x88\x92",
                           "\\approx 5",
                           "a = 1, b = 2",
                           "x = y = 5",
                           "=",
                           "\\text{five}",
                           "1e1001",
                           "1e999999999",
                           "10^{99999999999999999999}",
                           "10^{-1001}",
                           "2^{10}",
                           "10^x",
                           "10^{3",
                           "5\\times 10",
                           "5e",
                           "0,123",
                           "1.234.567",
                           "1.234,56",
                           "1,234\\,567",
                           "2 5/2",
                           "x <= 5",
                           "x != 5",
                           "\\pm 5",
                           "5k",
                           "5M",
                           "5g",
                           "5 K",
                           "3 hundred thousand",
                           "millions",
                           "5 (thousand)",
                           "5 (two less than 7)",
                           "5 (x)",
                           "3:4",
                           "101_2",
                           "(5)",
                           "{{{{{{{{{{{{{{{{{{{{5}}}}}}}}}}}}}}}}}}}}"})
    EXPECT_FALSE(parse_number(text)) << text;
}

// a / b = c / d exactly if a d = b c; 64-bit products are the judge.
TEST(Number, AgreesWithIntegerArithmetic) {
  std::mt19937_64 generator(1);
  int equal_pairs = 0;
  for (int k = 0; k < 20000; ++k) {
    const std::int64_t range = k % 2 ? 12 : 2000000000;
    const auto draw = [&] { return static_cast<std::int64_t>(generator() % range); };
    const std::int64_t a = draw() - range / 2, b = draw() + 1, c = draw() - range / 2,
                       d = draw() + 1;
    const std::string left = std::to_string(a) + "/" + std::to_string(b),
                      right = (c < 0 ? "-\\frac{" : "\\frac{") +
                              std::to_string(std::abs(c)) + "}{" + std::to_string(d) +
                              "}";
    const auto x = parse_number(left), y = parse_number(right);
    ASSERT_TRUE(x && y) << left << " " << right;
    EXPECT_EQ(equal(*x, *y), a * d == b * c) << left << " " << right;
    equal_pairs += a * d == b * c;
  }
  EXPECT_GT(equal_pairs, 100);
}

// Each would take hours or gigabytes if it were computed as written.
TEST(Number, HugeExponentsAreText) {
  for (const char* text : {"1e999999999", "10^{999999999}", "1e-999999999",
                           "7\\times10^{888888888}", "\\frac{1}{10^{999999999}}"}) {
    EXPECT_FALSE(parse_number(text)) << text;
    EXPECT_TRUE(same_answer(text, text)) << text;
    EXPECT_FALSE(same_answer(text, "1e999999998")) << text;
    EXPECT_FALSE(last_number(std::string("so 5 or ") + text)) << text;
  }
}

TEST(Number, AnyLength) {
  const std::string digits(50000, '7');
  EXPECT_TRUE(equal(*parse_number(digits), *parse_number("000" + digits + ".000")));
  EXPECT_FALSE(equal(*parse_number(digits), *parse_number(digits + "7")));
  EXPECT_TRUE(equal(*parse_number(digits + "/" + digits), *parse_number("1")));
  EXPECT_TRUE(equal(*parse_number("0." + digits), *parse_number("0." + digits + "0")));
}

}  // namespace
}  // namespace pion::lab
