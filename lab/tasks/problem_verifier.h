// SPDX-License-Identifier: Apache-2.0
// Who judges answers: what the user named, else what the problems name, within limits.
#pragma once

#include <memory>
#include <string>

#include "lab/data/problem_set.h"
#include "lab/rewards/verifier.h"

namespace pion::lab {

// The verifier `asked` for by the user with `key`, a recipe's key or its flag; where that
// is "", the problems' own. Problems come from anywhere: theirs must be a built-in one, and
// scorers of reasoning-gym that evaluate are refused unless `asked` names them. Throws
// std::invalid_argument that says so; nothing was run then.
std::unique_ptr<Verifier> make_problem_verifier(const ProblemSet& problems,
                                                const std::string& asked,
                                                const std::string& key,
                                                VerifierOptions options = {});

}  // namespace pion::lab
