// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/answer.h"

#include <string>
#include <vector>

#include "lab/rewards/answer_text.h"
#include "lab/rewards/number.h"
#include "lab/rewards/text.h"

namespace pion::lab {
namespace {

std::optional<std::string_view> unless_blank(std::string_view text) {
  text = trimmed(text);
  return text.empty() ? std::nullopt : std::optional(text);
}

// What follows \boxed or \fbox at `at`.
struct Box {
  std::size_t at = kNone;  // of what follows its blanks
  bool apart = false;      // blanks stand between
};

Box box_at(std::string_view text, std::size_t at) {
  for (const std::string_view word : {"\\boxed", "\\fbox"}) {
    if (!text.substr(at).starts_with(word)) continue;
    const std::size_t begin = at + word.size();
    at = begin;
    while (at < text.size() && is_blank(text[at])) ++at;
    return {at, at > begin};
  }
  return {};
}

// The end of an answer without braces that begins at `at`, or kNone: \boxed 72, \boxed72.
std::size_t end_of_token(std::string_view text, const Box& box) {
  std::size_t end = box.at;
  while (end < text.size() && !is_blank(text[end]) &&
         std::string_view("\\{}$").find(text[end]) == kNone)
    ++end;
  if (end == box.at || (!box.apart && is_letter(text[box.at]))) return kNone;
  // it ends with its text, a blank, $, a brace that it did not open, \), \] or a line
  if (end < text.size() && text[end] == '{') return kNone;
  if (end < text.size() && text[end] == '\\' &&
      (end + 1 == text.size() || std::string_view(")]\\").find(text[end + 1]) == kNone))
    return kNone;
  while (end > box.at && std::string_view(".,;").find(text[end - 1]) != kNone) --end;
  return end > box.at ? end : kNone;
}

}  // namespace

std::optional<std::string_view> last_boxed(std::string_view text) {
  constexpr std::size_t kPlain = kNone;
  std::vector<std::size_t> open;  // where the content of an open box begins, or kPlain
  std::size_t start = kNone, end = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {
      const Box box = box_at(text, i);
      if (box.at < text.size() && text[box.at] == '{') {
        open.push_back(box.at + 1);
        i = box.at;
        continue;
      }
      const std::size_t token = box.at < text.size() ? end_of_token(text, box) : kNone;
      if (token != kNone) {
        start = box.at, end = token;
        i = token - 1;
      } else {
        ++i;  // \{, \}, \\ and the first letter of another command
      }
    } else if (text[i] == '{') {
      open.push_back(kPlain);
    } else if (text[i] == '}' && !open.empty()) {
      if (open.back() != kPlain && (start == kNone || open.back() > start))
        start = open.back(), end = i;
      open.pop_back();
    }
  }
  return start == kNone ? std::nullopt : unless_blank(text.substr(start, end - start));
}

std::optional<std::string_view> after_hashes(std::string_view text) {
  const std::size_t at = text.rfind("####");
  if (at == kNone) return std::nullopt;
  text.remove_prefix(at + 4);
  return unless_blank(text.substr(0, text.find('\n')));
}

bool same_answer(std::string_view a, std::string_view b) {
  const std::optional<Number> x = parse_number(a), y = parse_number(b);
  if (x || y) return x && y && equal(*x, *y);
  const std::string left = plain_text(a), right = plain_text(b);
  // of two that are nothing but wrapping, the wrapping is compared
  return left.empty() ? trimmed(a) == trimmed(b) : left == right;
}

}  // namespace pion::lab
