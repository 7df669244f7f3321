// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/answer_text.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "lab/rewards/cursor.h"

namespace pion::lab {
namespace {

constexpr int kMostLayers = 16;  // keeps unwrapping linear

template <class Words>
bool drop_any_end(std::string_view& text, const Words& words) {
  for (const std::string_view word : words)
    if (text.ends_with(word)) {
      text.remove_suffix(word.size());
      return true;
    }
  return false;
}

// Without blanks, marks of Markdown and the punctuation of a sentence at either end.
std::string_view without_edges(std::string_view text) {
  constexpr std::array<std::string_view, 4> kMarks = {"*", "`", "_", "\""};
  constexpr std::array<std::string_view, 4> kStops = {".", ",", ";", "\\"};
  Cursor front{text};
  while (front.space() || front.take_any(kMarks) ||
         front.take_command("\\displaystyle") || front.take_command("\\textstyle")) {
  }
  text = front.rest;
  const auto blank = [&] {
    const std::size_t before = text.size();
    while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
    return text.size() < before;
  };
  const auto ends = [&] {  // most texts do, and need no further look
    return text.empty() || is_digit(text.back()) || is_letter(text.back());
  };
  while (!ends() && (blank() || drop_any_end(text, kLatexBlanks) ||
                     drop_any_end(text, kUnicodeBlanks) || drop_any_end(text, kMarks) ||
                     drop_any_end(text, kStops))) {
  }
  return text;
}

// The place of the brace that closes one open before `text`, or kNone.
std::size_t closing_brace(std::string_view text) {
  int depth = 1;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\')
      ++i;
    else if (text[i] == '{')
      ++depth;
    else if (text[i] == '}' && --depth == 0)
      return i;
  }
  return kNone;
}

// True if a pair of marks stood around the text and was taken off.
bool take_off_pair(std::string_view& text) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kPairs = {
      {{"$$", "$$"}, {"$", "$"}, {"\\(", "\\)"}, {"\\[", "\\]"}}};
  for (const auto& [open, close] : kPairs) {
    if (text.size() < open.size() + close.size() || !text.starts_with(open) ||
        !text.ends_with(close))
      continue;
    const std::string_view inside =
        text.substr(open.size(), text.size() - open.size() - close.size());
    if (inside.find(close) != kNone) continue;
    text = inside;
    return true;
  }
  Cursor at{text};
  if (!take_font(at) && !at.take_any({"{", "\\boxed{", "\\fbox{"})) return false;
  if (closing_brace(at.rest) + 1 != at.rest.size()) return false;
  text = at.rest.substr(0, at.rest.size() - 1);
  return true;
}

// "Final answer:", "The answer is", "Result =": words that say no more than that.
bool take_off_label(std::string_view& text) {
  constexpr std::array kNames = {"answer", "ans", "result", "solution", "total"};
  constexpr std::size_t kLongest = 40;
  std::string word;
  bool named = false;
  for (std::size_t i = 0; i < std::min(text.size(), kLongest); ++i) {
    if (is_letter(text[i])) {
      word += lower(text[i]);
      continue;
    }
    if (named && word == "is") {
      text.remove_prefix(i);
      return true;
    }
    if (!word.empty())
      named = std::find(kNames.begin(), kNames.end(), word) != kNames.end();
    word.clear();
    if (text[i] == ':' && named) {
      text.remove_prefix(i + 1);
      return true;
    }
    if (!is_blank(text[i]) && text[i] != '*') return false;
  }
  return false;
}

// {2} as 2: braces around one character say nothing, as in x^{2} and \frac{1}{2}.
bool copy_braced_character(Cursor& at, std::string& plain) {
  if (at.take("{\\circ}")) {
    plain += "\\circ";
    return true;
  }
  const std::string_view rest = at.rest;
  if (rest.size() < 3 || rest[0] != '{' || rest[2] != '}' || rest[1] == '\\' ||
      rest[1] == '{' || rest[1] == '}')
    return false;
  plain += rest[1];
  at.rest.remove_prefix(3);
  return true;
}

void copy_character(Cursor& at, std::string& plain, std::vector<bool>& dropped) {
  const char c = at.rest[0];
  at.rest.remove_prefix(1);
  if (c == '{') dropped.push_back(false);
  if (c == '}' && !dropped.empty()) {
    const bool drop = dropped.back();
    dropped.pop_back();
    if (drop) return;
  }
  plain += c;
  if (c == '\\' && !at.rest.empty()) {  // \{ is no brace
    plain += at.rest[0];
    at.rest.remove_prefix(1);
  }
}

// Commands that say nothing of the value, or have a shorter name. False for others.
bool copy_command(Cursor& at, std::string& plain, std::vector<bool>& dropped) {
  if (at.take_any({"\\$", "\\left.", "\\right."}) || at.take_command("\\left") ||
      at.take_command("\\right"))
    return true;
  if (at.take_any({"\\dfrac", "\\tfrac", "\\cfrac"})) {
    plain += "\\frac";
    return true;
  }
  if (at.take("\\%")) {
    plain += '%';
    return true;
  }
  if (!take_font(at)) return false;
  dropped.push_back(true);
  return true;
}

}  // namespace

bool take_font(Cursor& at) {
  return at.take_any({"\\text{", "\\textbf{", "\\textit{", "\\textrm{", "\\texttt{",
                      "\\mathrm{", "\\mathbf{", "\\mathit{", "\\mathsf{", "\\boldsymbol{",
                      "\\mbox{", "\\operatorname{", "\\bm{"});
}

std::string_view unwrapped(std::string_view text) {
  text = without_edges(text);
  for (int layer = 0; layer < kMostLayers; ++layer) {
    if (!take_off_pair(text) && !take_off_label(text)) break;
    text = without_edges(text);
  }
  return text;
}

std::string plain_text(std::string_view text) {
  Cursor at{unwrapped(text)};
  std::string plain;
  std::vector<bool> dropped;  // of every open brace: does it belong to a font
  while (!at.rest.empty()) {
    const char c = at.rest[0];
    if (at.space() || at.take("$")) continue;
    if (c == '\\' && copy_command(at, plain, dropped)) continue;
    if (at.take_any({"\xE2\x88\x92", "\xE2\x80\x93"}))
      plain += '-';
    else if (!copy_braced_character(at, plain))
      copy_character(at, plain, dropped);
  }
  const bool choice =
      plain.size() == 3 && plain[0] == '(' && is_letter(plain[1]) && plain[2] == ')';
  return choice ? plain.substr(1, 1) : plain;
}

}  // namespace pion::lab
