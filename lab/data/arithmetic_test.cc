// SPDX-License-Identifier: Apache-2.0
#include "lab/data/arithmetic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "lab/data/arithmetic_kind.h"
#include "lab/data/arithmetic_tokenizer.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

std::string decoded(const ProblemSet& problems, const std::vector<std::int32_t>& tokens) {
  return problems.vocabulary().decode(std::span<const std::int32_t>(tokens));
}

// The value of "37+48-29:", from left to right.
std::int64_t value_of(const std::string& prompt) {
  static const std::regex term("([+-]?)([0-9]+)");
  std::int64_t value = 0;
  for (std::sregex_iterator each(prompt.begin(), prompt.end(), term), end; each != end;
       ++each)
    value += (*each)[1] == "-" ? -std::stoll((*each)[2]) : std::stoll((*each)[2]);
  return value;
}

TEST(ComputeLine, IsArithmeticUnlessACarryIsForgotten) {
  for (std::int64_t a = -120; a <= 120; ++a)
    for (std::int64_t b = 0; b <= 120; ++b) {
      ASSERT_EQ(compute_line(a, '+', b, false), a + b);
      ASSERT_EQ(compute_line(a, '-', b, false), a - b);
    }
  struct Line {
    std::int64_t left;
    char op;
    std::int64_t right, written;
  };
  for (const Line& line :
       std::vector<Line>{{37, '+', 48, 75},
                         {12, '+', 34, 46},  // nothing to forget
                         {99, '+', 99, 188},
                         {5, '+', 7, 12},  // the leading column is whole
                         {137, '+', 48, 175},
                         {85, '-', 29, 66},
                         {29, '-', 85, -66},
                         {100, '-', 99, 111},
                         {-11, '-', 29, -30},
                         {-29, '+', 85, 66},
                         {-85, '+', 29, -66},
                         {40, '-', 40, 0}})
    EXPECT_EQ(compute_line(line.left, line.op, line.right, true), line.written)
        << line.left << line.op << line.right;
}

TEST(Arithmetic, WritesEveryLineAndTheBox) {
  const auto problems = make_arithmetic({});
  std::set<char> operators;
  bool negative = false;
  for (std::int64_t i = 0; i < 2000; ++i) {
    const Problem problem = problems->problem(Split::kTrain, i);
    const std::string prompt = decoded(*problems, problem.prompt);
    ASSERT_TRUE(
        std::regex_match(prompt, std::regex("[1-9][0-9][+-][1-9][0-9][+-][1-9][0-9]:")))
        << prompt;
    EXPECT_EQ(prompt, problem.text);
    const std::int64_t first = value_of(prompt.substr(0, 5)), last = value_of(prompt);
    EXPECT_EQ(decoded(*problems, problem.solution),
              prompt.substr(0, 5) + "=" + std::to_string(first) + "," +
                  std::to_string(first) + prompt.substr(5, 3) + "=" +
                  std::to_string(last) + ",\\boxed{" + std::to_string(last) + "}");
    EXPECT_EQ(problem.answer, std::to_string(last));
    EXPECT_EQ(problem.solution.back(), problems->stop_tokens().front());
    EXPECT_LE(problem.solution.size(), 36u);
    operators.insert(prompt[2]);
    negative |= last < 0;
  }
  EXPECT_EQ(operators.size(), 2u);
  EXPECT_TRUE(negative);
  EXPECT_EQ(problems->longest_prompt(), 9);
  EXPECT_EQ(problems->vocabulary().size(), 25);
}

TEST(Arithmetic, SplitsHoldEveryProblemOnceAndShareNoNumbers) {
  const auto problems = make_arithmetic({.kinds = {"d?d"}, .held_out = 0.25, .seed = 3});
  EXPECT_EQ(problems->size(Split::kHeldOut), 2 * 25);
  EXPECT_EQ(problems->size(Split::kTrain), 2 * 75);
  std::map<std::string, Split> seen;  // numbers -> split
  std::set<std::string> texts;
  for (const Split split : {Split::kTrain, Split::kHeldOut})
    for (std::int64_t i = 0; i < problems->size(split); ++i) {
      std::string text = problems->problem(split, i).text;
      EXPECT_TRUE(texts.insert(text).second) << text;
      text[1] = '?';
      EXPECT_EQ(seen.emplace(text, split).first->second, split) << text;
    }
  EXPECT_EQ(texts.size(), 200u);
}

// What SFT trained may not be what another set measures as held out.
TEST(Arithmetic, AProblemIsInTheSameSplitOfEverySet) {
  const auto mix = make_arithmetic({.kinds = {"d?d?d", "d-d-d", "d+d"}, .seed = 1});
  const auto one = make_arithmetic({.kinds = {"d-d-d"}, .seed = 2});
  std::set<std::string> held_out;
  for (std::int64_t i = 0; i < one->size(Split::kHeldOut); ++i)
    held_out.insert(one->problem(Split::kHeldOut, i).text);
  EXPECT_EQ(held_out.size(), 100u);
  std::map<std::size_t, int> lengths;
  for (std::int64_t i = 0; i < mix->size(Split::kTrain); ++i) {
    const std::string text = mix->problem(Split::kTrain, i).text;
    EXPECT_FALSE(held_out.contains(text)) << text;
    ++lengths[text.size()];
  }
  EXPECT_EQ(mix->size(Split::kTrain), 3 * 900 * 4);  // three times the largest kind's
  EXPECT_EQ(lengths[6], 2 * lengths[4]);             // kinds take turns
  for (std::int64_t i = 0; i < mix->size(Split::kHeldOut); ++i) {
    const std::string text = mix->problem(Split::kHeldOut, i).text;
    if (text.size() == 6 && text[1] == '-' && text[3] == '-') {
      EXPECT_TRUE(held_out.contains(text)) << text;
    }
  }
}

TEST(Arithmetic, TheSeedOrdersAndNothingElse) {
  const auto texts = [](std::uint64_t seed) {
    const auto problems = make_arithmetic({.kinds = {"d?d"}, .seed = seed});
    std::vector<std::string> result;
    for (std::int64_t i = 0; i < problems->size(Split::kTrain); ++i)
      result.push_back(problems->problem(Split::kTrain, i).text);
    return result;
  };
  std::vector<std::string> a = texts(1), b = texts(2);
  EXPECT_EQ(a, texts(1));
  EXPECT_NE(a, b);
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  EXPECT_EQ(a, b);
}

TEST(Arithmetic, TheTeacherErrsAsOftenAsAskedAndGoesOnFromThere) {
  const ArithmeticOptions options{.forget_carry = 0.5, .unboxed = 0.1, .seed = 9};
  const auto erring = make_arithmetic(options), again = make_arithmetic(options);
  constexpr int kProblems = 4000;
  int can_err = 0, erred = 0, unboxed = 0;
  static const std::regex line("(-?[0-9]+)([+-])([0-9]+)=(-?[0-9]+)");
  for (std::int64_t i = 0; i < kProblems; ++i) {
    const Problem problem = erring->problem(Split::kTrain, i);
    const std::string solution = decoded(*erring, problem.solution);
    ASSERT_EQ(problem.solution, again->problem(Split::kTrain, i).solution);
    EXPECT_EQ(problem.answer, std::to_string(value_of(problem.text)));
    std::string before;
    for (std::sregex_iterator each(solution.begin(), solution.end(), line), end;
         each != end; ++each) {
      EXPECT_TRUE(before.empty() || (*each)[1] == before) << solution;
      before = (*each)[4];
      const std::int64_t left = std::stoll((*each)[1]), right = std::stoll((*each)[3]);
      const char op = (*each)[2].str()[0];
      const std::int64_t truth = op == '+' ? left + right : left - right;
      const std::int64_t slip = compute_line(left, op, right, true);
      EXPECT_TRUE(std::stoll(before) == truth || std::stoll(before) == slip) << solution;
      can_err += slip != truth;
      erred += std::stoll(before) != truth;
    }
    if (solution.ends_with("=" + before))
      ++unboxed;
    else
      EXPECT_TRUE(solution.ends_with(",\\boxed{" + before + "}")) << solution;
  }
  // binomial, 5 standard deviations
  EXPECT_NEAR(erred, 0.5 * can_err, 5 * std::sqrt(0.25 * can_err));
  EXPECT_GT(can_err, kProblems / 2);
  EXPECT_NEAR(unboxed, 0.1 * kProblems, 5 * std::sqrt(0.09 * kProblems));
}

TEST(Arithmetic, RefusesWhatItCannotDraw) {
  const auto message = [](const ArithmeticOptions& options) {
    return message_of([&] { make_arithmetic(options); });
  };
  expect_says(message({.kinds = {}}), "1 to 8 patterns, got 0");
  expect_says(message({.kinds = {"12+34"}}), "it holds '1'");
  expect_says(message({.kinds = {"dd"}}), "at least one operator");
  expect_says(message({.kinds = {"dd+"}}), "end with a number");
  expect_says(message({.kinds = {"+dd"}}), "follow a number");
  expect_says(message({.kinds = {"ddddd+d"}}), "at most 4 digits");
  expect_says(message({.kinds = {"d+d+d+d+d+d"}}), "more than 5 numbers");
  expect_says(message({.kinds = {"dddd?dddd?dddd?dddd?dddd"}}), "2^59");
  expect_says(message({.kinds = {"d+d"}, .held_out = 0.001}), "both splits");
  expect_says(message({.held_out = 1.0}), "held_out must be in (0, 1)");
  expect_says(message({.forget_carry = -0.1}), "forget_carry must be in [0, 1]");
  expect_says(message({.unboxed = std::nan("")}), "unboxed must be in [0, 1]");
  const auto problems = make_arithmetic({.kinds = {"d+d"}});
  expect_says(message_of([&] { problems->problem(Split::kTrain, 90); }),
              "[0, 90), got 90");
}

TEST(Arithmetic, TheLargestKindsStillCount) {
  const auto problems = make_arithmetic({.kinds = {"dddd?dddd?dddd?dddd", "d+d"}});
  EXPECT_GT(problems->size(Split::kTrain), std::int64_t{1} << 55);
  const Problem last =
      problems->problem(Split::kTrain, problems->size(Split::kTrain) - 2);
  EXPECT_EQ(last.text.size(), 20u);
}

// tests/prepare_test.py gives these files to transformers.
TEST(Arithmetic, ItsTokenizerFilesAreTheOnesThatTransformersWasTriedOn) {
  for (const auto& [name, content] : arithmetic_tokenizer_files()) {
    std::ostringstream expected;
    expected << std::ifstream("tests/vectors/arithmetic_tokenizer/" + name).rdbuf();
    EXPECT_EQ(content, expected.str()) << name;
  }
}

TEST(Arithmetic, ItsTokenizerFileNamesTheSameTokens) {
  const auto problems = make_arithmetic({});
  const auto files = arithmetic_tokenizer_files();
  ASSERT_EQ(files[0].first, "tokenizer.json");
  const auto vocabulary = nlohmann::json::parse(files[0].second)["model"]["vocab"];
  EXPECT_EQ(static_cast<std::int64_t>(vocabulary.size()), problems->vocabulary().size());
  for (const auto& [token, id] : vocabulary.items()) {
    const std::vector<std::int32_t> ids = {id.get<std::int32_t>()};
    EXPECT_EQ(decoded(*problems, ids), token.size() == 1 ? token : "");
  }
  EXPECT_EQ(vocabulary["<eos>"], problems->stop_tokens().front());
  EXPECT_EQ(vocabulary["<pad>"], problems->pad_token());
}

}  // namespace
}  // namespace pion::lab
