// SPDX-License-Identifier: Apache-2.0
// Problems with checkable answers, already tokenized: what `python -m pion.prepare` writes, or
// the built-in arithmetic task draws.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pion::lab {

enum class Split { kTrain = 0, kHeldOut = 1 };

// Views into the set; valid as long as it is.
struct Problem {
  std::span<const std::int32_t> prompt;    // tokens, chat template applied
  std::span<const std::int32_t> solution;  // tokens of a worked answer with its stop token, for
                                           // SFT; may be empty
  std::string_view answer;                 // what the verifier compares with, UTF-8
  std::string_view extra;                  // JSON for verifiers that need more; may be empty
};

// The bytes of every token: decoding needs no tokenizer.
class Vocabulary {
 public:
  Vocabulary() = default;
  explicit Vocabulary(std::vector<std::string> tokens);  // special tokens are ""
  std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }
  std::string decode(std::span<const std::int64_t> tokens) const;  // ids outside: skipped

 private:
  std::vector<std::string> tokens_;
};

class ProblemSet {
 public:
  virtual ~ProblemSet() = default;
  virtual std::int64_t size(Split split) const = 0;
  // Problem `index` of a split; an endless set takes any index >= 0.
  virtual Problem problem(Split split, std::int64_t index) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
  virtual std::vector<std::int64_t> stop_tokens() const = 0;
  virtual std::string verifier() const = 0;  // its natural verifier's name, see lab/rewards
  virtual std::int64_t longest_prompt() const = 0;  // in tokens
  virtual std::string name() const = 0;             // "gsm8k", "arithmetic"
};

// Maps a file that `python -m pion.prepare` wrote. Throws std::invalid_argument that names the
// file and what is wrong: not such a file, another version, offsets that point outside, an
// empty split.
std::unique_ptr<ProblemSet> open_problem_set(const std::filesystem::path& path);

}  // namespace pion::lab
