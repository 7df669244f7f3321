// SPDX-License-Identifier: Apache-2.0
// How step_all spreads the blocks of large matrices over its threads.
#pragma once

#include "pion/executor.h"
#include "pion/optim/step_all.h"

namespace pion {

// Whether the update goes by blocks (see block_step.h) and nothing stands against several
// threads: f32 weights, and a momentum that needs no look.
bool may_step_by_blocks(const ParameterUpdate& update);

// One task per block of every matrix of the item, which is by_blocks.
void add_block_tasks(StepPlan& plan, std::size_t item);

// Moves to plan.team_tasks what all threads do better together: blocks dearer than the
// rest of their like can balance, and what is left over when the dear ones are dealt out
// evenly. plan.tasks are sorted, the dearest first; `total` is the cost of everything.
void form_teams(StepPlan& plan, double total, std::size_t threads);

void run_block(StepPlan& plan, const StepPlan::Task& task, StepWorkspaces::Thread& thread,
               Executor& executor);

// Fills plan.results of an item's matrices. Throws under NonFinite::kRaise and kZero if a
// momentum was not finite.
void merge_block_results(StepPlan& plan, const StepPlan::Item& item,
                         bool collect_spectrum);

}  // namespace pion
