// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "lab/data/arithmetic.h"
#include "lab/data/problem_set.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

// FNV-1a of "0 a\n1 b\n2 <s>\n", by the definition's two lines in another program.
constexpr const char* kExpected = "54cdf4c0fc787154";

TEST(TokenizerFingerprint, IsOfIdsAndTokensAlone) {
  EXPECT_EQ(tokenizer_fingerprint(
                R"({"model": {"type": "BPE", "vocab": {"b": 1, "a": 0}, "merges": []},
                    "added_tokens": [{"id": 2, "content": "<s>", "special": true}]})",
                "x"),
            kExpected);
  EXPECT_EQ(
      tokenizer_fingerprint(
          R"({"added_tokens": [{"content": "<s>", "id": 2}, {"content": "a", "id": 0}],
                    "model": {"vocab": [["a", -1.5], ["b", 0.0]]}})",
          "x"),
      kExpected);
}

TEST(TokenizerFingerprint, RefusesWhatIsNoTokenizer) {
  for (const char* text :
       {"", "{}", "[1]", R"({"model": {"vocab": 3}})",
        R"({"model": {"vocab": {"a": "b"}}})",
        R"({"model": {"vocab": {}}, "added_tokens": [{}]})",
        R"({"model":{"vocab":{"b":1e19}}})",
        R"({"model":{"vocab":{"b":18446744073709551615}}})",
        R"({"model":{"vocab":{"b":-1}}})", R"({"model":{"vocab":{"b":1.5}}})",
        R"({"model":{"vocab":{}},"added_tokens":[{"id":1e19,"content":""}]})",
        R"({"model": {"vocab": [1]}})"})
    expect_says(message_of([&] { tokenizer_fingerprint(text, "x/tokenizer.json"); }),
                "x/tokenizer.json: is no tokenizer.json");
}

TEST(TokenizerFingerprint, DeepTextsAndIdsThatNoIntegerHoldsAreNamed) {
  const auto message = [](const std::string& text) {
    return message_of([&] { tokenizer_fingerprint(text, "t"); });
  };
  expect_says(
      message(R"({"model":{"vocab":{"b":1e19}}})"),
      "t: is no tokenizer.json: a token's id must be a whole number >= 0, got 1e+19");
  expect_says(message(R"({"model":)" + std::string(100'000, '[')),
              "must nest at most 100 levels deep");
}

TEST(RequireTokenizerFits, ComparesSizeAndTokens) {
  const fs::path folder =
      fs::temp_directory_path() / ("pion_fits_" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const auto problems = make_arithmetic({});
  const auto fits = [&](std::int64_t vocab_size) {
    return message_of([&] { require_tokenizer_fits(*problems, vocab_size, folder); });
  };
  EXPECT_EQ(fits(25), "");  // the folder says nothing
  EXPECT_EQ(fits(32), "");  // rows of an embedding may be spare
  expect_says(fits(24), "has 25 tokens, the model in " + folder.string() + " knows 24");
  std::ofstream(folder / "tokenizer.json") << arithmetic_tokenizer_files()[0].second;
  EXPECT_EQ(fits(25), "");
  std::ofstream(folder / "tokenizer.json") << R"({"model": {"vocab": {"a": 0}}})";
  expect_says(fits(25), "of another tokenizer");
  // which no one can prepare anew
  expect_says(fits(25), "give a file that was prepared with --tokenizer " +
                            folder.string() + " as --data.source");
  std::ofstream(folder / "tokenizer.json") << "rubbish";
  expect_says(fits(25), "is no tokenizer.json");
  fs::remove_all(folder);
}

}  // namespace
}  // namespace pion::lab
