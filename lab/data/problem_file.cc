// SPDX-License-Identifier: Apache-2.0
// The file of problems: safetensors, with every column as one flat tensor and its
// offsets. docs/data.md lists them; python/pion/prepare_file.py writes them.

#include <algorithm>
#include <array>
#include <bit>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "lab/data/mapped_file.h"
#include "lab/data/problem_set.h"
#include "lab/run/safetensors.h"

namespace pion::lab {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are little endian");

constexpr std::string_view kFormat = "pion-problems";
constexpr std::string_view kVersion = "1";

// The tensors of a mapped file by name; every complaint names the file.
class ProblemColumns {
 public:
  explicit ProblemColumns(const std::filesystem::path& path)
      : where_(path.string()),
        file_(path),
        header_(parse_safetensors(file_.bytes(), file_.bytes().size(), where_)) {
    const auto format = header_.metadata.find("format");
    if (format == header_.metadata.end() || format->second != kFormat)
      fail("is no file of problems; `python -m pion.prepare` writes them");
    if (metadata("version") != kVersion)
      fail("is of version " + metadata("version") + ", this program reads version " +
           std::string(kVersion) + "; prepare it again");
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw std::invalid_argument(where_ + ": " + what);
  }

  const std::string& metadata(const std::string& key) const {
    const auto found = header_.metadata.find(key);
    if (found == header_.metadata.end()) fail("metadata lack \"" + key + "\"");
    return found->second;
  }

  // The JSON list of whole numbers >= 0 in the metadata.
  std::vector<std::int64_t> token_list(const std::string& key) const {
    const auto json = nlohmann::json::parse(metadata(key), nullptr, false);
    std::vector<std::int64_t> tokens;
    if (!json.is_array()) fail("metadata \"" + key + "\" must be a list of tokens");
    for (const auto& each : json) {
      if (!each.is_number_unsigned() || each.get<std::uint64_t>() > INT32_MAX)
        fail("metadata \"" + key + "\" must be a list of tokens");
      tokens.push_back(each.get<std::int64_t>());
    }
    return tokens;
  }

  template <class T>
  std::span<const T> flat(const std::string& name, TensorType type) const {
    const auto found = header_.tensors.find(name);
    if (found == header_.tensors.end()) fail("lacks tensor \"" + name + "\"");
    const TensorRecord& record = found->second;
    if (record.type != type || record.shape.size() != 1)
      fail("tensor \"" + name + "\" must be a list of " + std::string(type_tag(type)));
    const std::uint64_t begin = header_.data_start + record.begin;
    if (begin % sizeof(T) != 0) fail("tensor \"" + name + "\" is not aligned");
    return {reinterpret_cast<const T*>(file_.bytes().data() + begin),
            static_cast<std::size_t>(record.shape[0])};
  }

 private:
  std::string where_;
  MappedFile file_;
  SafetensorsHeader header_;
};

// Row i of `values` is [offsets[i], offsets[i + 1]).
template <class T>
struct Rows {
  std::span<const T> values;
  std::span<const std::int64_t> offsets;
  std::size_t count() const { return offsets.size() - 1; }
  std::span<const T> operator[](std::size_t i) const {
    return values.subspan(static_cast<std::size_t>(offsets[i]),
                          static_cast<std::size_t>(offsets[i + 1] - offsets[i]));
  }
  std::string text(std::size_t i) const {
    const auto row = (*this)[i];
    return {row.begin(), row.end()};
  }
};

template <class T>
Rows<T> read_rows(const ProblemColumns& columns, const std::string& name,
                  TensorType type) {
  const Rows<T> rows{columns.flat<T>(name, type),
                     columns.flat<std::int64_t>(name + "_offsets", TensorType::kI64)};
  const auto size = static_cast<std::int64_t>(rows.values.size());
  if (rows.offsets.empty() || rows.offsets.front() != 0 || rows.offsets.back() != size)
    columns.fail("\"" + name + "_offsets\" must run from 0 to " + std::to_string(size));
  if (!std::is_sorted(rows.offsets.begin(), rows.offsets.end()))
    columns.fail("\"" + name + "_offsets\" must not fall");
  return rows;
}

// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::span<const std::uint8_t> text) {
  for (std::size_t i = 0; i < text.size();) {
    const std::uint8_t lead = text[i++];
    if (lead < 0x80) continue;
    if (lead < 0xc2 || lead > 0xf4) return false;
    std::uint8_t low = 0x80, high = 0xbf;  // of the second byte
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
    for (int more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3; more > 0; --more) {
      if (i == text.size() || text[i] < low || text[i] > high) return false;
      low = 0x80, high = 0xbf;
      ++i;
    }
  }
  return true;
}

class ProblemFile : public ProblemSet {
 public:
  explicit ProblemFile(const std::filesystem::path& path) : columns_(path) {
    prompts_ = read_rows<std::int32_t>(columns_, "prompt", TensorType::kI32);
    solutions_ = read_rows<std::int32_t>(columns_, "solution", TensorType::kI32);
    answers_ = read_rows<std::uint8_t>(columns_, "answer", TensorType::kU8);
    extras_ = read_rows<std::uint8_t>(columns_, "extra", TensorType::kU8);
    texts_ = read_rows<std::uint8_t>(columns_, "text", TensorType::kU8);
    read_vocabulary();
    read_splits();
    check_problems();
  }

  std::int64_t size(Split split) const override {
    return static_cast<std::int64_t>(members(split).size());
  }

  Problem problem(Split split, std::int64_t index) const override {
    if (index < 0 || index >= size(split))
      throw std::invalid_argument("ProblemSet::problem: index must be in [0, " +
                                  std::to_string(size(split)) + "), got " +
                                  std::to_string(index));
    const std::size_t row = members(split)[static_cast<std::size_t>(index)];
    return {.prompt = {prompts_[row].begin(), prompts_[row].end()},
            .solution = {solutions_[row].begin(), solutions_[row].end()},
            .answer = answers_.text(row),
            .extra = extras_.text(row),
            .text = texts_.text(row)};
  }

  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::vector<std::int64_t> stop_tokens() const override { return stop_tokens_; }
  std::optional<std::int64_t> pad_token() const override { return pad_token_; }
  std::string verifier() const override { return columns_.metadata("verifier"); }
  std::int64_t longest_prompt() const override { return longest_prompt_; }
  std::string name() const override { return columns_.metadata("name"); }
  std::string fingerprint() const override { return columns_.metadata("tokenizer"); }

 private:
  const std::vector<std::uint32_t>& members(Split split) const {
    return members_[split == Split::kHeldOut];
  }

  void read_vocabulary() {
    const auto rows = read_rows<std::uint8_t>(columns_, "vocabulary", TensorType::kU8);
    if (rows.count() == 0) columns_.fail("the vocabulary is empty");
    std::vector<std::string> tokens;
    tokens.reserve(rows.count());
    for (std::size_t i = 0; i < rows.count(); ++i) tokens.push_back(rows.text(i));
    vocabulary_ = Vocabulary(std::move(tokens), read_leading_blank());
    stop_tokens_ = columns_.token_list("stop_tokens");
    const std::vector<std::int64_t> pad = columns_.token_list("pad_token");
    if (pad.size() > 1) columns_.fail("metadata \"pad_token\" must name at most one");
    if (!pad.empty()) pad_token_ = pad[0];
    if (stop_tokens_.empty()) columns_.fail("metadata \"stop_tokens\" must not be empty");
    for (const std::int64_t token : stop_tokens_) check_token(token, "a stop token");
    for (const std::int64_t token : pad) check_token(token, "the padding");
    for (const char* key : {"name", "verifier", "tokenizer"}) columns_.metadata(key);
  }

  LeadingBlank read_leading_blank() const {
    const std::string& strip = columns_.metadata("strip");
    if (strip == "none") return LeadingBlank::kKept;
    if (strip == "space") return LeadingBlank::kOneDropped;
    if (strip == "first_token") return LeadingBlank::kDroppedFromFirstToken;
    columns_.fail("metadata \"strip\" must be none, space or first_token, got \"" +
                  strip + "\"");
  }

  void read_splits() {
    const auto splits = columns_.flat<std::uint8_t>("split", TensorType::kU8);
    const std::size_t count = splits.size();
    if (prompts_.count() != count || solutions_.count() != count ||
        answers_.count() != count || extras_.count() != count || texts_.count() != count)
      columns_.fail("columns must have one length, that of \"split\", " +
                    std::to_string(count));
    if (count > UINT32_MAX) columns_.fail("more than 2^32 problems");
    for (std::size_t i = 0; i < count; ++i) {
      if (splits[i] > 1)
        columns_.fail("\"split\" must be 0 or 1, problem " + std::to_string(i) + " has " +
                      std::to_string(splits[i]));
      members_[splits[i]].push_back(static_cast<std::uint32_t>(i));
    }
    for (const Split split : {Split::kTrain, Split::kHeldOut})
      if (members(split).empty())
        columns_.fail(std::string("no problem is ") +
                      (split == Split::kTrain ? "for training" : "held out") +
                      "; prepare it with another --held-out, or more problems");
  }

  void check_token(std::int64_t token, const std::string& what) const {
    if (token < 0 || token >= vocabulary_.size())
      columns_.fail(what + " must be in the vocabulary, [0, " +
                    std::to_string(vocabulary_.size()) + "), got " +
                    std::to_string(token));
  }

  void check_problems() {
    for (std::size_t i = 0; i < prompts_.count(); ++i) {
      const std::string problem = " of problem " + std::to_string(i);
      if (prompts_[i].empty()) columns_.fail("the prompt" + problem + " is empty");
      longest_prompt_ =
          std::max(longest_prompt_, static_cast<std::int64_t>(prompts_[i].size()));
      for (const auto* texts : {&answers_, &extras_, &texts_})
        if (!is_utf8((*texts)[i])) columns_.fail("a text" + problem + " is no UTF-8");
      for (const std::int32_t token : prompts_[i])
        check_token(token, "a token" + problem);
      for (const std::int32_t token : solutions_[i])
        check_token(token, "a token" + problem);
    }
  }

  ProblemColumns columns_;
  Rows<std::int32_t> prompts_, solutions_;
  Rows<std::uint8_t> answers_, extras_, texts_;
  Vocabulary vocabulary_;
  std::vector<std::int64_t> stop_tokens_;
  std::optional<std::int64_t> pad_token_;
  std::array<std::vector<std::uint32_t>, 2> members_;  // rows of train, of held out
  std::int64_t longest_prompt_ = 0;
};

}  // namespace

std::unique_ptr<ProblemSet> open_problem_set(const std::filesystem::path& path) {
  return std::make_unique<ProblemFile>(path);
}

bool is_problem_file(const std::filesystem::path& path) {
  try {
    const auto metadata = SafetensorsFile(path).header().metadata;
    const auto format = metadata.find("format");
    return format != metadata.end() && format->second == kFormat;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

}  // namespace pion::lab
