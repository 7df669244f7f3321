// SPDX-License-Identifier: Apache-2.0
#include "lab/models/tokenizer_reply.h"

#include <stdexcept>

#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

using ReplyJson = nlohmann::json;

[[noreturn]] void refuse_reply(const std::string& wanted, std::string_view line) {
  constexpr std::size_t kShown = 300;
  throw std::invalid_argument("its answer must hold " + wanted + ", got " +
                              std::string(line.substr(0, kShown)) +
                              (line.size() > kShown ? "..." : ""));
}

ReplyJson field_of_reply(std::string_view line, const char* wanted) {
  const ReplyJson reply = try_json<ReplyJson>(line);
  if (!reply.is_object()) refuse_reply("a JSON object", line);
  const auto error = reply.find("error");
  if (error != reply.end() && error->is_string())
    throw std::invalid_argument(error->get<std::string>());
  const auto field = reply.find(wanted);
  if (field == reply.end()) refuse_reply(wanted, line);
  return *field;
}

}  // namespace

std::vector<std::int64_t> read_tokens_reply(std::string_view line) {
  const ReplyJson tokens = field_of_reply(line, "tokens");
  if (!tokens.is_array()) refuse_reply("a list of tokens", line);
  std::vector<std::int64_t> found;
  for (const ReplyJson& each : tokens) {
    const auto token = json_integer(each);
    if (!token || *token < 0) refuse_reply("tokens that are whole numbers >= 0", line);
    found.push_back(*token);
  }
  return found;
}

std::string read_text_reply(std::string_view line) {
  const ReplyJson text = field_of_reply(line, "text");
  if (!text.is_string()) refuse_reply("a text", line);
  return text.get<std::string>();
}

}  // namespace pion::lab
