// SPDX-License-Identifier: Apache-2.0
#include "lab/report/escape.h"

#include <cctype>

namespace pion::lab::report {
namespace {

bool starts_with_ignoring_case(std::string_view text, std::string_view lower) {
  if (text.size() < lower.size()) return false;
  for (std::size_t i = 0; i < lower.size(); ++i) {
    if (std::tolower(static_cast<unsigned char>(text[i])) != lower[i]) return false;
  }
  return true;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string result;
  for (const char letter : text) {
    switch (letter) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += letter;
    }
  }
  return result;
}

std::string escape_script_json(std::string_view json) {
  std::string result;
  for (const char letter : json) {
    switch (letter) {
      case '<':
        result += "\\u003c";
        break;
      case '>':
        result += "\\u003e";
        break;
      case '&':
        result += "\\u0026";
        break;
      default:
        result += letter;
    }
  }
  return result;
}

std::string escape_script(std::string_view script) {
  std::string result;
  for (std::size_t i = 0; i < script.size(); ++i) {
    const std::string_view rest = script.substr(i);
    result += script[i];
    if (starts_with_ignoring_case(rest, "</script") ||
        starts_with_ignoring_case(rest, "<!--")) {
      result += '\\';
    }
  }
  return result;
}

}  // namespace pion::lab::report
