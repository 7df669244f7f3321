// SPDX-License-Identifier: Apache-2.0
#include "lab/models/tokenizer_reply.h"

#include <gtest/gtest.h>

#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

TEST(TokenizerReply, HoldsTokensOrATextOrAnError) {
  EXPECT_EQ(read_tokens_reply(R"({"tokens": [5, 0, 151643]})"),
            (std::vector<std::int64_t>{5, 0, 151643}));
  EXPECT_EQ(read_text_reply(R"({"text": "a\u00e9"})"), "a\xc3\xa9");
  for (const auto& said :
       {message_of([] { read_tokens_reply(R"({"error": "no template"})"); }),
        message_of([] { read_text_reply(R"({"error": "no template"})"); })})
    EXPECT_EQ(said, "no template");
  for (const std::string& line :
       {std::string(), std::string("[1]"), std::string(R"({"text": 3})"),
        std::string(R"({"tokens": "5"})"), std::string(R"({"tokens": [1e19]})"),
        std::string(R"({"tokens": [-1]})"), std::string(R"({"tokens": [1.5]})"),
        R"({"tokens": )" + std::string(100'000, '[')}) {
    expect_says(message_of([&] { read_tokens_reply(line); }), "its answer must hold ");
    expect_says(message_of([&] { read_text_reply(line); }), "its answer must hold ");
  }
}

}  // namespace
}  // namespace pion::lab
