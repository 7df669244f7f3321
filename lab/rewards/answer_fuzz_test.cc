// SPDX-License-Identifier: Apache-2.0
// Mutated answers and replies: no crash, no view outside the text. Sanitizers see the
// rest.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>
#include <string>

#include "lab/rewards/answer.h"
#include "lab/rewards/number.h"
#include "lab/rewards/worker_verifier.h"

namespace pion::lab {
namespace {

using Generator = std::mt19937;

std::string mutated(std::string text, Generator& generator) {
  constexpr std::array<std::string_view, 20> kPieces = {
      "\\boxed{", "{",   "}",   "\\frac", "\\", "####", "-", "1,234", ".",
      "/",        "%",   "\\%", "$",      "0",  "9",    " ", "\n",    "\xE2\x88\x92",
      "\\text{",  "\xff"};
  const auto draw = [&](std::size_t n) { return generator() % n; };
  for (std::size_t k = 1 + draw(6); k > 0; --k) {
    const std::size_t at = draw(text.size() + 1);
    switch (draw(4)) {
      case 0:
        text.insert(at, kPieces[draw(kPieces.size())]);
        break;
      case 1:
        text.erase(at, draw(4));
        break;
      case 2:
        if (at < text.size()) text[at] = static_cast<char>(generator());
        break;
      default:
        text.insert(at, text.substr(draw(text.size() + 1), draw(9)));
    }
  }
  return text;
}

void expect_inside(std::string_view part, const std::string& text) {
  EXPECT_GE(part.data(), text.data());
  EXPECT_LE(part.data() + part.size(), text.data() + text.size());
  EXPECT_FALSE(part.empty());
}

TEST(Fuzz, AnswersStayInsideTheirText) {
  Generator generator(7);
  const std::array<std::string, 5> seeds = {
      "so $\\boxed{-2\\frac{1}{2}\\%}$", "48+24 = 72\n#### 1,234.5 clips",
      "it is \xE2\x88\x92"
      "5 / 7 of \\$1{,}000",
      "\\boxed{\\text{72} \\mathrm{cm}^{2}}", "37+48=85,85-29=56,\\boxed{56}"};
  int numbers = 0;
  for (int k = 0; k < 60000; ++k) {
    const std::string text = mutated(seeds[k % seeds.size()], generator);
    for (const auto extract : {last_boxed, after_hashes, last_number}) {
      const auto part = extract(text);
      if (!part) continue;
      expect_inside(*part, text);
      const auto number = parse_number(*part);
      if (!number) continue;
      ++numbers;
      EXPECT_TRUE(equal(*number, *number)) << *part;
      EXPECT_TRUE(same_answer(*part, *part)) << *part;
    }
    if (const auto number = last_number(text)) {
      EXPECT_TRUE(parse_number(*number)) << *number;
    }
  }
  EXPECT_GT(numbers, 10000) << "the mutations leave nothing to look at";
}

TEST(Fuzz, RepliesAreVerdictsOrRubbish) {
  Generator generator(8);
  const std::array<std::string, 3> seeds = {
      R"({"id": 3, "score": 1.0, "correct": true, "formatted": true, "right_unformatted": false})",
      R"({"id": 3, "late": false, "error": "ValueError: no"})", R"({"ready": true})"};
  int verdicts = 0, problems = 0;
  for (int k = 0; k < 30000; ++k) {
    const Reply reply = read_reply(mutated(seeds[k % seeds.size()], generator), 3);
    (reply.problem.empty() ? verdicts : problems) += 1;
    EXPECT_TRUE(std::isfinite(reply.score));
  }
  EXPECT_GT(verdicts, 10);
  EXPECT_GT(problems, 10000);
}

}  // namespace
}  // namespace pion::lab
