// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sstream>
#include <stdexcept>

namespace pion::lab {

// Throws Error, std::invalid_argument if none is named, with the parts in a row unless
// `holds`.
template <class Error = std::invalid_argument, class... Parts>
void require(bool holds, const Parts&... parts) {
  if (holds) return;
  std::ostringstream message;
  (message << ... << parts);
  throw Error(message.str());
}

}  // namespace pion::lab
