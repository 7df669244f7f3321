// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/worker_reply.h"

#include <cmath>

#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

using Json = nlohmann::json;

}  // namespace

std::string shown_line(std::string text) {
  constexpr std::size_t kShown = 300;
  if (text.size() > kShown) text = text.substr(0, kShown) + "...";
  return text;
}

Reply read_reply(const std::string& line, std::int64_t id) {
  const Json reply = try_json<Json>(line);
  const auto rubbish = [&] {
    return Reply{.problem = "the line \"" + shown_line(line) + "\""};
  };
  const auto is = [&](const char* key, auto type) {
    return reply.contains(key) && (reply[key].*type)();
  };
  if (!reply.is_object() || !is("id", &Json::is_number_integer) || reply["id"] != id)
    return rubbish();
  if (is("error", &Json::is_string))
    return {.late = is("late", &Json::is_boolean) && reply["late"].get<bool>(),
            .problem = shown_line(reply["error"].get<std::string>()),
            .raised = true};
  if (!is("score", &Json::is_number) || !is("correct", &Json::is_boolean) ||
      !is("formatted", &Json::is_boolean) ||
      !is("right_unformatted", &Json::is_boolean) ||
      !std::isfinite(reply["score"].get<double>()))
    return rubbish();
  return {.verdict = {.correct = reply["correct"],
                      .formatted = reply["formatted"],
                      .right_unformatted = reply["right_unformatted"]},
          .score = reply["score"]};
}

}  // namespace pion::lab
