// SPDX-License-Identifier: Apache-2.0
#include "lab/files/shown_text.h"

#include <gtest/gtest.h>

#include "lab/files/utf8.h"

namespace pion::lab {
namespace {

TEST(ShownText, ShortTextsAreShownAsTheyAre) {
  EXPECT_EQ(shortened(""), "");
  EXPECT_EQ(shortened("7 + 12"), "7 + 12");
  EXPECT_EQ(shortened(std::string(200, 'a')), std::string(200, 'a'));
}

TEST(ShownText, LongTextsKeepBothEndsAndSayHowMuchIsLeftOut) {
  EXPECT_EQ(shortened("abcdefghijkl", 6), "abcd[... 6 bytes ...]kl");
  const std::string shown = shortened("Q" + std::string(126'000, 'x') + "?");
  EXPECT_LT(shown.size(), 250u);
  EXPECT_EQ(shown.front(), 'Q');
  EXPECT_EQ(shown.back(), '?');
  EXPECT_NE(shown.find("[... 125802 bytes ...]"), std::string::npos) << shown;
}

TEST(ShownText, CharactersAreNeverCut) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "\u00e9\u20ac\U0001f600";  // 2, 3 and 4 bytes
  for (std::size_t limit = 0; limit < 40; ++limit)
    EXPECT_TRUE(is_utf8(shortened(text, limit))) << limit;
  // what is no text at all is cut anywhere
  EXPECT_LT(shortened(std::string(1000, '\x80'), 10).size(), 40u);
}

}  // namespace
}  // namespace pion::lab
