// SPDX-License-Identifier: Apache-2.0
// What a language run began with, so that one that goes on can tell whether it was
// exchanged.
#pragma once

#include "lab/tasks/language_setup.h"

namespace pion::lab {

// For a checkpoint's state: digests of the problems (sizes and up to 256 of each split)
// and of a model folder's weights (a few of every tensor). Call before the first update.
Json setup_digest(const LanguageSetup& setup);

// Throws std::invalid_argument if `state`, which setup_digest was put into as "setup",
// was of other problems or weights; states of before there were digests are accepted.
void require_same_setup(const Json& state, const Json& digest, const std::string& task);

}  // namespace pion::lab
