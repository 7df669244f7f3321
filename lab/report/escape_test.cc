// SPDX-License-Identifier: Apache-2.0
#include "lab/report/escape.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace pion::lab::report {
namespace {

TEST(Escape, JsonCannotCloseItsScriptAndParsesToTheSame) {
  const nlohmann::json value = {
      {"</script><!-- & \"x\"", "</SCRIPT >\n<script>alert(1)"}};
  const std::string escaped = escape_script_json(value.dump());
  EXPECT_EQ(escaped.find('<'), std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(escaped), value);
}

TEST(Escape, ScriptsKeepTheirTextButForTheClosingTag) {
  EXPECT_EQ(escape_script("a < b; c = '</script>';"), "a < b; c = '<\\/script>';");
  EXPECT_EQ(escape_script("'</ScRiPt' + '<!--'"), "'<\\/ScRiPt' + '<\\!--'");
  EXPECT_EQ(escape_script("x</s"), "x</s");
}

TEST(Escape, HtmlHasNoMarkupLeft) {
  EXPECT_EQ(escape_html("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
}

}  // namespace
}  // namespace pion::lab::report
