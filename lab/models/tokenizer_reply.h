// SPDX-License-Identifier: Apache-2.0
// Lines of python/pion/tokenizer_worker.py.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pion::lab {

// {"tokens": [5, 6]} and {"text": "..."}. Throw std::invalid_argument: what the process
// says for {"error": "..."}, "its answer must ..." for anything else.
std::vector<std::int64_t> read_tokens_reply(std::string_view line);
std::string read_text_reply(std::string_view line);

}  // namespace pion::lab
