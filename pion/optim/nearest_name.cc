// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cctype>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "pion/optim/rule.h"

namespace pion {
namespace {

// Insertions, deletions, substitutions and swaps of neighbours, each 1.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1,
                                          std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitution = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, substitution});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

std::string lower_case(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return result;
}

// "lr" of "learning_rate"; "" for a single word.
std::string initials(std::string_view name) {
  std::string result;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (name[i] != '_' && (i == 0 || name[i - 1] == '_')) result += name[i];
  }
  return result.size() > 1 ? result : std::string();
}

}  // namespace

std::string nearest_name(std::string_view name,
                         const std::vector<std::string>& candidates) {
  // no name is longer; bounds the work on foreign input
  constexpr std::size_t kLongest = 64;
  if (name.empty() || name.size() > kLongest) return "";
  const std::string wanted = lower_case(name);
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, wanted.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kLongest) continue;
    const std::size_t distance = edit_distance(wanted, lower_case(candidate));
    if (distance < best_distance) best = candidate, best_distance = distance;
  }
  if (!best.empty()) return best;
  for (const std::string& candidate : candidates) {
    const std::string known = lower_case(candidate);
    if (initials(known) == wanted || initials(wanted) == known) return candidate;
    constexpr std::size_t kTelling = 4;  // a part of three letters says nothing
    const std::string& shorter = known.size() < wanted.size() ? known : wanted;
    const std::string& longer = known.size() < wanted.size() ? wanted : known;
    if (shorter.size() >= kTelling && longer.find(shorter) != std::string::npos)
      return candidate;
  }
  return "";
}

}  // namespace pion
