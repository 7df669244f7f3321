// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/outside_text.h"

#include <algorithm>
#include <vector>

namespace pion {
namespace {

// Walks TOML outside of its texts and comments. Until the first error of the text it sees
// the same borders of texts as a parser does; what follows that is not parsed.
class TomlScan {
 public:
  TomlScan(std::string_view text, int limit)
      : text_(text), limit_(static_cast<std::size_t>(limit)) {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;  // byte order mark
  }

  std::optional<TomlFlaw> flaw() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"' || c == '\'') {
        skip_text(c);
      } else if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else {
        const bool plain = c == '\t' || c == '\n' || c == '\r' || (c >= ' ' && c <= '~');
        if (!plain)
          return here("only texts and comments may hold characters that are no ASCII");
        count(c);
        if (depth_ > limit_) return here("lists, tables and dotted keys nest too deep");
        ++at_;
      }
    }
    return std::nullopt;
  }

 private:
  TomlFlaw here(const char* what) const {
    const std::string_view before = text_.substr(0, at_);
    const std::size_t start = before.rfind('\n') + 1;  // npos + 1 is 0
    const auto lines = std::count(before.begin(), before.end(), '\n');
    return {what, static_cast<std::size_t>(lines) + 1, at_ - start + 1};
  }

  // Open brackets, and the dots of the keys that lead to them. The dot of a number counts
  // until the next comma or line.
  void count(char c) {
    if (c == '[' || c == '{') {
      ++depth_;
      dots_.push_back(0);
    } else if (c == '.') {
      ++depth_;
      ++dots_.back();
    } else if (c == ']' || c == '}') {
      depth_ -= dots_.back();
      dots_.back() = 0;
      if (dots_.size() == 1) return;  // one too many, which the parser refuses
      --depth_;
      dots_.pop_back();
    } else if (c == ',' || c == '\n') {
      depth_ -= dots_.back();
      dots_.back() = 0;
    }
  }

  void skip_text(char quote) {
    const std::string_view rest = text_.substr(at_);
    const bool several_lines = rest.size() >= 3 && rest[1] == quote && rest[2] == quote;
    at_ += several_lines ? 3 : 1;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\\' && quote == '"') {
        ++at_;
      } else if (c == '\n' && !several_lines) {
        return;  // a text without end, an error
      } else if (c == quote) {
        if (!several_lines) break;
        std::size_t run = text_.find_first_not_of(quote, at_);
        run = std::min(run, text_.size()) - at_;
        if (run >= 3) {  // the last three end it, up to two before them are its own
          at_ += std::min<std::size_t>(run, 5);
          return;
        }
        at_ += run - 1;
      }
    }
    at_ = std::min(at_ + 1, text_.size());
  }

  std::string_view text_;
  std::size_t limit_, at_ = 0, depth_ = 0;
  std::vector<std::size_t> dots_ = {0};  // of the open keys, one entry a bracket
};

}  // namespace

bool json_nests_deeper(std::string_view json, int limit) {
  int depth = 0;
  bool inside_text = false;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (inside_text && c == '\\')
      ++i;
    else if (c == '"')
      inside_text = !inside_text;
    else if (!inside_text && (c == '[' || c == '{') && ++depth > limit)
      return true;
    else if (!inside_text && (c == ']' || c == '}'))
      --depth;
  }
  return false;
}

std::optional<TomlFlaw> find_toml_flaw(std::string_view toml, int limit) {
  return TomlScan(toml, limit).flaw();
}

}  // namespace pion
