// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <sstream>

#include "lab/data/problem_set.h"
#include "lab/files/safetensors.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

struct TemporaryDirectory {
  fs::path path =
      fs::temp_directory_path() / ("pion_problems_" + std::to_string(::getpid()));
  TemporaryDirectory() { fs::create_directories(path); }
  ~TemporaryDirectory() { fs::remove_all(path); }
};

// What a file holds, to be spoilt by the tests.
struct Content {
  std::map<std::string, std::vector<std::int32_t>> tokens;
  std::map<std::string, std::vector<std::int64_t>> offsets;
  std::map<std::string, std::string> bytes;
  std::map<std::string, std::string> metadata;
};

// Three problems over the vocabulary "", "a", "b", "\n", "\xc3" (half of "é"), " c".
Content valid() {
  return {.tokens = {{"prompt", {1, 2, 5, 3, 1}}, {"solution", {2, 0, 1, 0}}},
          .offsets = {{"prompt_offsets", {0, 2, 3, 5}},
                      {"solution_offsets", {0, 2, 2, 4}},
                      {"answer_offsets", {0, 2, 2, 3}},
                      {"extra_offsets", {0, 0, 2, 2}},
                      {"text_offsets", {0, 1, 2, 4}},
                      {"vocabulary_offsets", {0, 0, 1, 2, 3, 4, 6}}},
          .bytes = {{"answer", "727"},
                    {"extra", "{}"},
                    {"text", "xy\xc3\xa9"},
                    {"vocabulary", "ab\n\xc3 c"},
                    {"split", std::string("\0\1\0", 3)}},
          .metadata = {{"format", "pion-problems"},
                       {"version", "1"},
                       {"name", "toy"},
                       {"verifier", "boxed"},
                       {"stop_tokens", "[0]"},
                       {"pad_token", "[3]"},
                       {"tokenizer", "00ff"},
                       {"strip", "none"}}};
}

void write(const fs::path& path, const Content& content) {
  std::vector<TensorBytes> tensors;
  const auto add = [&](const std::string& name, TensorType type, const auto& values) {
    tensors.push_back({name,
                       type,
                       {static_cast<std::int64_t>(values.size())},
                       std::as_bytes(std::span(values))});
  };
  for (const auto& [name, values] : content.tokens) add(name, TensorType::kI32, values);
  for (const auto& [name, values] : content.offsets) add(name, TensorType::kI64, values);
  for (const auto& [name, values] : content.bytes) add(name, TensorType::kU8, values);
  write_safetensors(path, tensors, content.metadata);
}

TEST(ProblemFile, GivesBackWhatWasWritten) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path / "a.safetensors";
  write(path, valid());
  EXPECT_TRUE(is_problem_file(path));
  const auto problems = open_problem_set(path);
  EXPECT_EQ(problems->size(Split::kTrain), 2);
  EXPECT_EQ(problems->size(Split::kHeldOut), 1);
  const Problem first = problems->problem(Split::kTrain, 0);
  EXPECT_EQ(first.prompt, (std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(first.solution, (std::vector<std::int32_t>{2, 0}));
  EXPECT_EQ(first.answer, "72");
  EXPECT_EQ(first.extra, "");
  const Problem second = problems->problem(Split::kTrain, 1);
  EXPECT_EQ(second.prompt, (std::vector<std::int32_t>{3, 1}));
  EXPECT_EQ(second.answer, "7");
  EXPECT_EQ(second.text, "\xc3\xa9");
  const Problem held_out = problems->problem(Split::kHeldOut, 0);
  EXPECT_EQ(held_out.prompt, (std::vector<std::int32_t>{5}));
  EXPECT_TRUE(held_out.solution.empty());
  EXPECT_EQ(held_out.extra, "{}");
  EXPECT_EQ(problems->name(), "toy");
  EXPECT_EQ(problems->verifier(), "boxed");
  EXPECT_EQ(problems->fingerprint(), "00ff");
  EXPECT_EQ(problems->stop_tokens(), (std::vector<std::int64_t>{0}));
  EXPECT_EQ(problems->pad_token(), 3);
  EXPECT_EQ(problems->longest_prompt(), 2);
  EXPECT_EQ(problems->vocabulary().size(), 6);
  expect_says(message_of([&] { problems->problem(Split::kHeldOut, 1); }),
              "[0, 1), got 1");
  expect_says(message_of([&] { problems->problem(Split::kTrain, -1); }),
              "[0, 2), got -1");
}

TEST(ProblemFile, DescribesItself) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path / "a.safetensors";
  write(path, valid());
  const std::string page = describe_problem_set(*open_problem_set(path), 1);
  for (const std::string part :
       {"problems    toy", "verifier    boxed", "6 tokens, fingerprint 00ff",
        "stop tokens 0, padding 3", "train: 2 problems", "prompt tokens 2 to 2, mean 2",
        "held out: 1 problems", "solution tokens none", "prompt    ab\n", "solution  b\n",
        "answer    72\n", "extra     {}\n"})
    EXPECT_NE(page.find(part), std::string::npos) << part << "\n" << page;
  EXPECT_EQ(page.find("problem 1"), std::string::npos);
}

TEST(Vocabulary, JoinsBytesAndDropsWhatTokenizersPutBefore) {
  const std::vector<std::string> tokens = {"", " a", "b", "  ", "\xc3", "\xa9"};
  const auto decode = [&](LeadingBlank leading_blank, std::vector<std::int64_t> ids) {
    return Vocabulary(tokens, leading_blank).decode(std::span<const std::int64_t>(ids));
  };
  EXPECT_EQ(decode(LeadingBlank::kKept, {0, 1, 2, 1}), " ab a");
  EXPECT_EQ(decode(LeadingBlank::kOneDropped, {0, 1, 2, 1}), "ab a");
  EXPECT_EQ(decode(LeadingBlank::kOneDropped, {3, 1}), "  a");
  EXPECT_EQ(decode(LeadingBlank::kDroppedFromFirstToken, {0, 3, 3, 1}), "   a");
  EXPECT_EQ(decode(LeadingBlank::kDroppedFromFirstToken, {2, 1}), "b a");
  EXPECT_EQ(decode(LeadingBlank::kKept, {4, 5}), "\xc3\xa9");
  // not in the vocabulary: U+FFFD
  EXPECT_EQ(decode(LeadingBlank::kKept, {-1, 2, 6, std::int64_t{1} << 40}),
            "\xef\xbf\xbd"
            "b"
            "\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(decode(LeadingBlank::kOneDropped, {}), "");
}

TEST(ProblemFile, RefusesWhatIsDamagedOrForeignAndSaysWhat) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path / "bad.safetensors";
  const auto message = [&](const std::function<void(Content&)>& spoil) {
    Content content = valid();
    spoil(content);
    write(path, content);
    const std::string said = message_of([&] { open_problem_set(path); });
    expect_says(said, path.string());
    return said;
  };
  expect_says(message([](Content& c) { c.metadata.erase("format"); }),
              "no file of problems");
  expect_says(message([](Content& c) { c.metadata["version"] = "2"; }),
              "prepare it again");
  expect_says(message([](Content& c) { c.metadata.erase("verifier"); }), "\"verifier\"");
  expect_says(message([](Content& c) { c.metadata["stop_tokens"] = "[]"; }),
              "not be empty");
  expect_says(message([](Content& c) { c.metadata["stop_tokens"] = "[6]"; }),
              "[0, 6), got 6");
  expect_says(message([](Content& c) { c.metadata["stop_tokens"] = "[-1]"; }), "a list");
  expect_says(message([](Content& c) { c.metadata["pad_token"] = "7"; }), "a list");
  expect_says(message([](Content& c) { c.metadata["pad_token"] = "[1, 2]"; }),
              "at most one");
  expect_says(message([](Content& c) { c.metadata["strip"] = "all"; }), "got \"all\"");
  expect_says(message([](Content& c) { c.tokens.erase("solution"); }), "lacks tensor");
  expect_says(
      message([](Content& c) { c.offsets["prompt"] = {0}, c.tokens.erase("prompt"); }),
      "must be a list of I32");
  expect_says(message([](Content& c) { c.offsets["prompt_offsets"] = {}; }),
              "from 0 to 5");
  expect_says(message([](Content& c) { c.offsets["prompt_offsets"][0] = 1; }),
              "from 0 to 5");
  expect_says(message([](Content& c) { c.offsets["prompt_offsets"][3] = 6; }),
              "from 0 to 5");
  expect_says(message([](Content& c) { c.offsets["prompt_offsets"][1] = 4; }),
              "must not fall");
  expect_says(message([](Content& c) { c.offsets["text_offsets"][1] = -9; }),
              "must not fall");
  expect_says(message([](Content& c) { c.offsets["prompt_offsets"][1] = 0; }),
              "the prompt of problem 0 is empty");
  expect_says(message([](Content& c) { c.tokens["prompt"][2] = 6; }), "of problem 1");
  expect_says(message([](Content& c) { c.tokens["solution"][3] = -1; }),
              "[0, 6), got -1");
  expect_says(message([](Content& c) { c.bytes["split"] += '\0'; }), "one length");
  expect_says(message([](Content& c) { c.bytes["split"][1] = 2; }), "problem 1 has 2");
  expect_says(message([](Content& c) { c.bytes["split"][1] = 0; }),
              "no problem is held out");
  expect_says(message([](Content& c) { c.bytes["split"] = "\1\1\1"; }), "for training");
  expect_says(message([](Content& c) {
                c.bytes["vocabulary"] = "", c.offsets["vocabulary_offsets"] = {0};
              }),
              "vocabulary is empty");
  for (const char* text : {"\x80", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80",
                           "\xf4\x90\x80\x80", "\xff", "\xf0\x9f\x99"})
    expect_says(message([&](Content& c) {
                  c.bytes["extra"] = text;
                  const auto size = static_cast<std::int64_t>(c.bytes["extra"].size());
                  c.offsets["extra_offsets"] = {0, 0, size, size};
                }),
                "of problem 1 is no UTF-8");
  std::ofstream(path, std::ios::trunc) << "";
  expect_says(message_of([&] { open_problem_set(path); }), "truncated");
  EXPECT_FALSE(is_problem_file(path));
  expect_says(message_of([&] { open_problem_set(directory.path / "none"); }),
              "No such file");
  expect_says(message_of([&] { open_problem_set(directory.path); }), "must be a file");
  EXPECT_FALSE(is_problem_file(directory.path));
}

// A mapped file would end the process by SIGBUS.
TEST(ProblemFile, TruncatedOrChangedWhileInUseIsAnError) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path / "a.safetensors";
  Content content = valid();
  write(path, content);
  const auto problems = open_problem_set(path);
  content.tokens["prompt"][0] = 77;  // outside of the vocabulary; written over, in place
  const fs::path other = directory.path / "b.safetensors";
  write(other, content);
  ASSERT_EQ(fs::file_size(other), fs::file_size(path));
  std::ostringstream bytes;
  bytes << std::ifstream(other, std::ios::binary).rdbuf();
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary) << bytes.str();
  expect_says(message_of([&] { problems->problem(Split::kTrain, 0); }),
              "a token of problem 0 must be in the vocabulary, [0, 6), got 77");
  EXPECT_EQ(problems->problem(Split::kTrain, 1).answer, "7");
  fs::resize_file(path, 100);
  expect_says(message_of([&] { problems->problem(Split::kTrain, 1); }),
              path.string() + ": cannot be read: it was truncated while in use");
}

// Rows are read many at a time when a file is opened.
TEST(ProblemFile, LongColumnsAreCheckedToTheirEnd) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path / "long.safetensors";
  Content content = valid();
  constexpr int kRows = 3000,
                kLength = 200;  // 600,000 tokens, more than are read at once
  std::vector<std::int32_t>& prompt = content.tokens["prompt"];
  prompt.assign(kRows * kLength, 1);
  for (const char* name : {"prompt", "solution", "answer", "extra", "text"}) {
    std::vector<std::int64_t>& offsets = content.offsets[std::string(name) + "_offsets"];
    offsets.assign(kRows + 1, 0);
    if (std::string(name) == "prompt")
      for (int i = 0; i <= kRows; ++i) offsets[i] = i * kLength;
  }
  content.tokens["solution"].clear();
  for (const char* name : {"answer", "extra", "text"}) content.bytes[name].clear();
  content.bytes["split"] = std::string(kRows, '\0');
  content.bytes["split"].back() = '\1';
  write(path, content);
  const auto problems = open_problem_set(path);
  EXPECT_EQ(problems->problem(Split::kHeldOut, 0).prompt.size(), 200u);
  EXPECT_EQ(problems->longest_prompt(), 200);
  prompt.back() = 6;
  write(path, content);
  expect_says(message_of([&] { open_problem_set(path); }), "a token of problem 2999");
}

// Whatever bytes change, the file is refused with std::invalid_argument or all of it can
// be read. AddressSanitizer sees the rest.
TEST(ProblemFile, SurvivesMutations) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path / "fuzz.safetensors";
  write(path, valid());
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  const std::string original = text.str();
  std::size_t header = 0;
  std::memcpy(&header, original.data(), 8);
  std::mt19937 random(20261122);
  int accepted = 0, refused = 0;
  for (int round = 0; round < 1200; ++round) {
    std::string file = original;
    // three in four only in the data, or no mutation would pass the header's checks
    const std::size_t first = round % 4 == 0 ? 0 : 8 + header;
    for (unsigned change = random() % 3 + 1; change > 0; --change) {
      const std::size_t at = first + random() % (file.size() - first);
      switch (random() % 4) {
        case 0:
          file[at] = static_cast<char>(random());
          break;
        case 1:
          file[at] = static_cast<char>(file[at] ^ 1 << random() % 8);
          break;
        case 2:
          file[at] = static_cast<char>(file[at] + 1);
          break;
        default:
          if (round % 8 == 0) file.resize(std::max<std::size_t>(at, first + 1));
          break;
      }
    }
    std::ofstream(path, std::ios::binary | std::ios::trunc) << file;
    try {
      const auto problems = open_problem_set(path);
      EXPECT_FALSE(describe_problem_set(*problems, 3).empty());
      ++accepted;
    } catch (const std::invalid_argument&) {
      ++refused;
    }
  }
  EXPECT_GT(accepted, 60);
  EXPECT_GT(refused, 300);
}

}  // namespace
}  // namespace pion::lab
