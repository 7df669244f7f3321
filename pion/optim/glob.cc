// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/glob.h"

#include <cstddef>

namespace pion {

bool matches_glob(std::string_view glob, std::string_view name) {
  // at a mismatch the last star takes one character more: glob.size() * name.size() at
  // most
  constexpr std::size_t kNone = std::string_view::npos;
  std::size_t g = 0, n = 0, star = kNone, star_name = 0;
  while (n < name.size()) {
    if (g < glob.size() && glob[g] == '*') {
      star = g++;
      star_name = n;
    } else if (g < glob.size() && (glob[g] == '?' || glob[g] == name[n])) {
      ++g, ++n;
    } else if (star != kNone) {
      g = star + 1;
      n = ++star_name;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

}  // namespace pion
