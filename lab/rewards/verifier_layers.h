// SPDX-License-Identifier: Apache-2.0
// What stands before a verifier: which part of a response it sees, and which references.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lab/rewards/verifier.h"

namespace pion::lab {

// Other right answers of a problem: the texts in {"alternatives": ["7", "seven"]}. None
// if `extra` has no such list.
std::vector<std::string> alternatives(std::string_view extra);

// Right if the reference or one of its alternatives is. An alternative is tried where
// those before it were wrong; a failure of the worker counts as a wrong answer of it.
std::unique_ptr<Verifier> any_reference(std::unique_ptr<Verifier> verifier);

// Shows what follows the last `mark` of a response. A response without it has no answer:
// no form, reward 0, and nobody is asked.
std::unique_ptr<Verifier> after_mark(std::unique_ptr<Verifier> verifier,
                                     std::string mark);

}  // namespace pion::lab
