// SPDX-License-Identifier: Apache-2.0
// Problems with checkable answers, already tokenized: what `python -m pion.prepare`
// writes, or the built-in arithmetic task draws.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pion::lab {

enum class Split { kTrain = 0, kHeldOut = 1 };

// A copy: it needs the set no longer. Views into a temporary Problem dangle.
struct Problem {
  std::vector<std::int32_t> prompt;    // tokens, chat template applied; not empty
  std::vector<std::int32_t> solution;  // tokens of a worked answer with its stop token,
                                       // for SFT; may be empty
  std::string answer;                  // what the verifier compares with, UTF-8
  std::string extra;                   // JSON for verifiers that need more; may be empty
  std::string text;                    // the prompt as people read it, without template
};

// What decoding drops at the beginning of a text, where a tokenizer puts a blank before
// it.
enum class LeadingBlank { kKept, kOneDropped, kDroppedFromFirstToken };

// The bytes of every token: decoding joins them and needs no tokenizer. A model may have
// more tokens than a vocabulary: those that are not in it are U+FFFD, so that a text
// which holds one is not taken for the text without it.
class Vocabulary {
 public:
  Vocabulary() = default;
  explicit Vocabulary(std::vector<std::string> tokens,  // special tokens are ""
                      LeadingBlank leading_blank = LeadingBlank::kKept);
  std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }
  std::string decode(std::span<const std::int64_t> tokens) const;
  std::string decode(std::span<const std::int32_t> tokens) const;

 private:
  std::vector<std::string> tokens_;
  LeadingBlank leading_blank_ = LeadingBlank::kKept;
};

// Reading is safe from several threads.
class ProblemSet {
 public:
  virtual ~ProblemSet() = default;
  // > 0. May be huge (arithmetic counts its problems without storing them): draw from it
  // with shuffled_index() of permutation.h, never with a list of all.
  virtual std::int64_t size(Split split) const = 0;
  // Throws std::invalid_argument unless 0 <= index < size(split).
  virtual Problem problem(Split split, std::int64_t index) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
  virtual std::vector<std::int64_t> stop_tokens() const = 0;
  virtual std::optional<std::int64_t> pad_token() const = 0;
  virtual std::string verifier()
      const = 0;  // its natural verifier's name, see lab/rewards
  virtual std::int64_t longest_prompt() const = 0;  // in tokens
  virtual std::string name() const = 0;             // "gsm8k", "arithmetic"
  // tokenizer_fingerprint() of what made the tokens; "" if unknown.
  virtual std::string fingerprint() const = 0;
};

// Opens a file that `python -m pion.prepare` wrote; docs/data.md has the format. Throws
// std::invalid_argument that names the file and what is wrong: not such a file, another
// version, offsets that point outside, tokens outside the vocabulary, an empty split.
std::unique_ptr<ProblemSet> open_problem_set(const std::filesystem::path& path);

// Whether a file is one for open_problem_set, by its first bytes; false if it cannot be
// read.
bool is_problem_file(const std::filesystem::path& path);

// A page of text: name, sizes, verifier, stop tokens, vocabulary, lengths and the first
// `samples` problems of each split, decoded.
std::string describe_problem_set(const ProblemSet& problems, std::int64_t samples = 2);

// Identifies a vocabulary: FNV-1a over "id token\n" of all tokens of a tokenizer.json in
// the order of ids, as 16 hexadecimal digits. Throws std::invalid_argument if the text is
// no tokenizer.json; `where` begins the message.
std::string tokenizer_fingerprint(std::string_view tokenizer_json,
                                  const std::string& where);

// Throws std::invalid_argument if these problems cannot be a model's: a vocabulary larger
// than the model's `vocab_size`, or a tokenizer.json in `model_folder` whose fingerprint
// differs. A folder without tokenizer.json is judged by size alone.
void require_tokenizer_fits(const ProblemSet& problems, std::int64_t vocab_size,
                            const std::filesystem::path& model_folder);

}  // namespace pion::lab
