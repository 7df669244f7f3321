// SPDX-License-Identifier: Apache-2.0
#include "lab/files/printable.h"

#include <gtest/gtest.h>

#include "lab/files/utf8.h"

namespace pion::lab {
namespace {

TEST(Printable, TextStaysAndWhatTerminalsObeyIsShown) {
  const std::string text = "a\tb\nc \xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x99\x82 \\x1b";
  EXPECT_EQ(printable(text), text);
  EXPECT_EQ(printable("\x1b[31mred\x1b[0m\a\r\b\x7f"),
            "\\x1b[31mred\\x1b[0m\\x07\\x0d\\x08\\x7f");
  EXPECT_EQ(printable(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("\302\23331m"), "\\u009b31m");      // CSI in one character
  EXPECT_EQ(printable("\xe2\x80\xaegpj"), "\\u202egpj");  // written from the right
  EXPECT_EQ(printable("\xff\xc0\xaf\xed\xa0\x80 \xe2\x80"),
            "\\xff\\xc0\\xaf\\xed\\xa0\\x80 \\xe2\\x80");
  EXPECT_EQ(printable_line("a\nb\tc\x1b"), "a\\nb\\tc\\x1b");
}

TEST(Utf8, IsThatOfRfc3629) {
  for (const char* text :
       {"", "a", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
        "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(is_utf8(text)) << text;
  for (const char* text :
       {"\x80", "\xc3", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xff", "\xf0\x9f\x99"})
    EXPECT_FALSE(is_utf8(text)) << text;
  EXPECT_EQ(first_character("\xf0\x9f\x99\x82x").character, 0x1f642u);
  EXPECT_EQ(first_character("\xe2\x82\xac").character, 0x20acu);
}

}  // namespace
}  // namespace pion::lab
