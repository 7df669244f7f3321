// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace pion::lab {

// Throws std::invalid_argument if the system cannot start `count` threads at once, the
// caller among them; `key` is what asked for them, "threads". OpenMP, which starts
// LibTorch's, ends the process instead, in the middle of a run.
void require_threads(int count, const std::string& key);

}  // namespace pion::lab
