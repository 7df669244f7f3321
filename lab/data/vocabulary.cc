// SPDX-License-Identifier: Apache-2.0
#include "lab/data/problem_set.h"

namespace pion::lab {
namespace {

template <class Id>
std::string concatenated(const std::vector<std::string>& tokens,
                         std::span<const Id> ids) {
  std::string text;
  for (const Id id : ids)
    if (id >= 0 && static_cast<std::size_t>(id) < tokens.size())
      text += tokens[static_cast<std::size_t>(id)];
  return text;
}

}  // namespace

Vocabulary::Vocabulary(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {}

std::string Vocabulary::decode(std::span<const std::int64_t> tokens) const {
  return concatenated(tokens_, tokens);
}

std::string Vocabulary::decode(std::span<const std::int32_t> tokens) const {
  return concatenated(tokens_, tokens);
}

}  // namespace pion::lab
