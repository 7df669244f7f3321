// SPDX-License-Identifier: Apache-2.0
#include "lab/data/arithmetic_tokenizer.h"

#include <cassert>
#include <nlohmann/json.hpp>

#include "lab/data/arithmetic.h"

namespace pion::lab {
namespace {

constexpr std::string_view kCharacters = "0123456789+-=,:\\boxed{}";
constexpr std::int32_t kFirst = 2;  // id of kCharacters[0]

}  // namespace

Vocabulary arithmetic_vocabulary() {
  std::vector<std::string> tokens = {"", ""};
  for (const char c : kCharacters) tokens.emplace_back(1, c);
  return Vocabulary(std::move(tokens));
}

std::vector<std::int32_t> arithmetic_tokens(std::string_view text) {
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size() + 1);
  for (const char c : text) {
    const std::size_t at = kCharacters.find(c);
    assert(at != std::string_view::npos);
    tokens.push_back(static_cast<std::int32_t>(at) + kFirst);
  }
  return tokens;
}

std::vector<std::pair<std::string, std::string>> arithmetic_tokenizer_files() {
  using Json = nlohmann::ordered_json;
  Json vocabulary = Json::object(), added = Json::array();
  for (const auto& [name, id] :
       {std::pair("<pad>", kArithmeticPad), {"<eos>", kArithmeticStop}}) {
    vocabulary[name] = id;
    added.push_back({{"id", id},
                     {"content", name},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  for (std::size_t i = 0; i < kCharacters.size(); ++i)
    vocabulary[std::string(1, kCharacters[i])] = kFirst + static_cast<std::int32_t>(i);
  // every character is a word, Fuse joins words without blanks; the unknown token is not
  // in the vocabulary, so that other characters are an error and not dropped
  const Json tokenizer = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Split"},
        {"pattern", {{"Regex", "[\\s\\S]"}}},
        {"behavior", "Isolated"},
        {"invert", false}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "Fuse"}}},
      {"model", {{"type", "WordLevel"}, {"vocab", vocabulary}, {"unk_token", "<unk>"}}}};
  const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                       {"pad_token", "<pad>"},
                       {"eos_token", "<eos>"},
                       {"clean_up_tokenization_spaces", false},
                       {"padding_side", "left"},
                       {"model_max_length", 512}};
  const Json special = {{"eos_token", "<eos>"}, {"pad_token", "<pad>"}};
  return {{"tokenizer.json", tokenizer.dump(1) + "\n"},
          {"tokenizer_config.json", config.dump(1) + "\n"},
          {"special_tokens_map.json", special.dump(1) + "\n"}};
}

}  // namespace pion::lab
