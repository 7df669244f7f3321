// SPDX-License-Identifier: Apache-2.0
// Policies that other runs begin with: an SFT recipe's trained model, made once and kept
// in runs/bases/<recipe>-<hash of the resolved recipe, its problems and the threads>/, or
// below $PION_BASES.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "lab/run/recipe.h"

namespace pion::lab {

// The Hugging Face folder of recipe `name`'s policy as `threads` threads make it; "" if
// it has not been made yet. Throws std::invalid_argument for an unknown recipe.
std::filesystem::path start_policy_folder(const std::string& name, std::int64_t threads);

// Makes what `recipe` begins with, if anything: trains it on `threads` threads, or waits
// while another process does. Its progress is shown unless `quiet`. Throws
// std::invalid_argument if that recipe is wrong, Interrupted after a signal,
// std::runtime_error if it learned nothing.
void make_start_policy(const Recipe& recipe, int threads, bool quiet);

}  // namespace pion::lab
