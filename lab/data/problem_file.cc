// SPDX-License-Identifier: Apache-2.0
// The file of problems: safetensors, with every column as one flat tensor and its
// offsets. docs/data.md lists them; python/pion/prepare_file.py writes them.

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "lab/data/problem_set.h"
#include "lab/files/read_only_file.h"
#include "lab/files/safetensors.h"
#include "lab/files/utf8.h"
#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are little endian");

constexpr std::string_view kFormat = "pion-problems";
constexpr std::string_view kVersion = "1";

// The tensors of a file by name; every complaint names the file.
class ProblemColumns {
 public:
  explicit ProblemColumns(const std::filesystem::path& path)
      : where_(path.string()), file_(path), header_(read_header()) {
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
    const auto json = try_json<nlohmann::json>(metadata(key));
    std::vector<std::int64_t> tokens;
    if (!json.is_array()) fail("metadata \"" + key + "\" must be a list of tokens");
    for (const auto& each : json) {
      const auto token = json_integer(each);
      if (!token || *token < 0 || *token > INT32_MAX)
        fail("metadata \"" + key + "\" must be a list of tokens");
      tokens.push_back(*token);
    }
    return tokens;
  }

  struct Place {
    std::uint64_t begin;  // in the file
    std::size_t size;     // entries
  };
  Place place(const std::string& name, TensorType type) const {
    const auto found = header_.tensors.find(name);
    if (found == header_.tensors.end()) fail("lacks tensor \"" + name + "\"");
    const TensorRecord& record = found->second;
    if (record.type != type || record.shape.size() != 1)
      fail("tensor \"" + name + "\" must be a list of " + std::string(type_tag(type)));
    return {header_.data_start + record.begin, static_cast<std::size_t>(record.shape[0])};
  }

  // `count` entries of a column from entry `first` on.
  template <class T>
  void read(const Place& place, std::size_t first, std::span<T> into) const {
    file_.read(place.begin + first * sizeof(T), std::as_writable_bytes(into));
  }

  template <class T>
  std::vector<T> whole(const std::string& name, TensorType type) const {
    const Place from = place(name, type);
    std::vector<T> values(from.size);
    read(from, 0, std::span(values));
    return values;
  }

 private:
  SafetensorsHeader read_header() const {
    std::string start(std::min(file_.size(), kSafetensorsLengthBytes), '\0');
    file_.read(0, std::as_writable_bytes(std::span(start)));
    start.resize(safetensors_start(start, file_.size()));
    file_.read(0, std::as_writable_bytes(std::span(start)));
    return parse_safetensors(start, file_.size(), where_);
  }

  std::string where_;
  ReadOnlyFile file_;
  SafetensorsHeader header_;
};

// Row i of a column of values is [offsets[i], offsets[i + 1]). Offsets are kept, values
// stay in the file.
template <class T>
class Rows {
 public:
  Rows(const ProblemColumns& columns, const std::string& name, TensorType type)
      : columns_(columns),
        place_(columns.place(name, type)),
        offsets_(columns.whole<std::int64_t>(name + "_offsets", TensorType::kI64)) {
    const auto size = static_cast<std::int64_t>(place_.size);
    if (offsets_.empty() || offsets_.front() != 0 || offsets_.back() != size)
      columns.fail("\"" + name + "_offsets\" must run from 0 to " + std::to_string(size));
    if (!std::is_sorted(offsets_.begin(), offsets_.end()))
      columns.fail("\"" + name + "_offsets\" must not fall");
  }

  std::size_t count() const { return offsets_.size() - 1; }

  // Into a vector or a text.
  template <class Row>
  Row read(std::size_t i) const {
    Row row(begin(i + 1) - begin(i), typename Row::value_type());
    columns_.read(place_, begin(i), std::span(row));
    return row;
  }

  // Rows one after another, which are read many at a time.
  class Scan {
   public:
    explicit Scan(const Rows& rows) : rows_(rows) {}
    std::span<const T> operator[](std::size_t i) {
      const std::size_t begin = rows_.begin(i), end = rows_.begin(i + 1);
      if (begin < first_ || end > first_ + read_.size()) {
        constexpr std::size_t kAhead = 1 << 18;  // entries: 1 MiB of tokens
        first_ = begin;
        read_.resize(std::min(rows_.place_.size - begin, std::max(end - begin, kAhead)));
        rows_.columns_.read(rows_.place_, first_, std::span(read_));
      }
      return std::span<const T>(read_).subspan(begin - first_, end - begin);
    }

   private:
    const Rows& rows_;
    std::size_t first_ = 0;
    std::vector<T> read_;
  };

 private:
  std::size_t begin(std::size_t i) const { return static_cast<std::size_t>(offsets_[i]); }

  const ProblemColumns& columns_;
  ProblemColumns::Place place_;
  std::vector<std::int64_t> offsets_;
};

class ProblemFile : public ProblemSet {
 public:
  explicit ProblemFile(const std::filesystem::path& path)
      : columns_(path),
        prompts_(columns_, "prompt", TensorType::kI32),
        solutions_(columns_, "solution", TensorType::kI32),
        answers_(columns_, "answer", TensorType::kU8),
        extras_(columns_, "extra", TensorType::kU8),
        texts_(columns_, "text", TensorType::kU8) {
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
    return {.prompt = tokens(prompts_, row),
            .solution = tokens(solutions_, row),
            .answer = answers_.read<std::string>(row),
            .extra = extras_.read<std::string>(row),
            .text = texts_.read<std::string>(row)};
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
    const Rows<char> rows(columns_, "vocabulary", TensorType::kU8);
    if (rows.count() == 0) columns_.fail("the vocabulary is empty");
    std::vector<std::string> tokens;
    tokens.reserve(rows.count());
    Rows<char>::Scan scan(rows);
    for (std::size_t i = 0; i < rows.count(); ++i)
      tokens.emplace_back(scan[i].begin(), scan[i].end());
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
    const auto splits = columns_.whole<std::uint8_t>("split", TensorType::kU8);
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

  void check_tokens(std::span<const std::int32_t> tokens, std::size_t row) const {
    for (const std::int32_t token : tokens)
      if (token < 0 || token >= vocabulary_.size())
        check_token(token, "a token of problem " + std::to_string(row));
  }

  // Looked at again when they are used: a file may change after it was opened.
  std::vector<std::int32_t> tokens(const Rows<std::int32_t>& rows,
                                   std::size_t row) const {
    auto found = rows.read<std::vector<std::int32_t>>(row);
    check_tokens(found, row);
    return found;
  }

  void check_problems() {
    Rows<std::int32_t>::Scan prompts(prompts_), solutions(solutions_);
    Rows<char>::Scan answers(answers_), extras(extras_), texts(texts_);
    for (std::size_t i = 0; i < prompts_.count(); ++i) {
      const std::span<const std::int32_t> prompt = prompts[i];
      const std::string problem = " of problem " + std::to_string(i);
      if (prompt.empty()) columns_.fail("the prompt" + problem + " is empty");
      longest_prompt_ =
          std::max(longest_prompt_, static_cast<std::int64_t>(prompt.size()));
      for (auto* scan : {&answers, &extras, &texts}) {
        const std::span<const char> text = (*scan)[i];
        if (!is_utf8({text.data(), text.size()}))
          columns_.fail("a text" + problem + " is no UTF-8");
      }
      check_tokens(prompt, i);
      check_tokens(solutions[i], i);
    }
  }

  ProblemColumns columns_;
  Rows<std::int32_t> prompts_, solutions_;
  Rows<char> answers_, extras_, texts_;
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
