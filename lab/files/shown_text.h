// SPDX-License-Identifier: Apache-2.0
// Text of others (files, flags, models) in messages.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace pion::lab {

// A text of at most `limit` bytes as it is; of a longer one both ends, cut between
// characters, with the number of bytes left out: "first w[... 126000 bytes ...]t words".
// For every text in a message that a file, a model or a command line may make long.
std::string shortened(std::string_view text, std::size_t limit = 200);

}  // namespace pion::lab
