// SPDX-License-Identifier: Apache-2.0
// Verdicts from worker processes: python/pion/reward_worker.py says what is spoken.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lab/rewards/confinement.h"
#include "lab/rewards/verifier.h"
#include "lab/rewards/worker_reply.h"

namespace pion::lab {

// `command` starts one worker, `name` is what messages call it. An attempt whose worker
// hangs, dies or sends rubbish has the verdict `failed`; the worker is started again for
// the next one. After kFailuresInARow a worker is asked once a batch until it answers.
// Throws std::invalid_argument if a worker does not start.
inline constexpr int kFailuresInARow = 5;
std::unique_ptr<Verifier> make_worker_verifier(const std::string& name,
                                               const ConfinedCommand& command,
                                               const VerifierOptions& options);

// reward_worker.py, confined. A user's function may start programs, where bubblewrap
// keeps them; scorers of packages have no need to.
ConfinedCommand reward_worker_command(const std::string& name,
                                      const VerifierOptions& options);

}  // namespace pion::lab
