// SPDX-License-Identifier: Apache-2.0
#include "lab/data/problem_set.h"

namespace pion::lab {
namespace {

template <class Id>
std::string joined(const std::vector<std::string>& tokens, LeadingBlank leading_blank,
                   std::span<const Id> ids) {
  static const std::string unknown = "\xef\xbf\xbd";  // U+FFFD
  std::string text;
  for (const Id id : ids) {
    const bool known = id >= 0 && static_cast<std::size_t>(id) < tokens.size();
    const std::string& token = known ? tokens[static_cast<std::size_t>(id)] : unknown;
    const bool is_first = text.empty();
    text += token;
    if (is_first && !token.empty() &&
        leading_blank == LeadingBlank::kDroppedFromFirstToken) {
      std::erase(text, ' ');
      leading_blank = LeadingBlank::kKept;
    }
  }
  if (leading_blank == LeadingBlank::kOneDropped && text.starts_with(' '))
    text.erase(0, 1);
  return text;
}

}  // namespace

Vocabulary::Vocabulary(std::vector<std::string> tokens, LeadingBlank leading_blank)
    : tokens_(std::move(tokens)), leading_blank_(leading_blank) {}

std::string Vocabulary::decode(std::span<const std::int64_t> tokens) const {
  return joined(tokens_, leading_blank_, tokens);
}

std::string Vocabulary::decode(std::span<const std::int32_t> tokens) const {
  return joined(tokens_, leading_blank_, tokens);
}

}  // namespace pion::lab
