// SPDX-License-Identifier: Apache-2.0
// checkpoints/step_N/ of a run:
//
//   model.safetensors      parameters and buffers
//   optimizer.safetensors  Optimizer::state_tensors()
//   task.safetensors       Task::save's tensors and LibTorch's CPU generator
//   state.json             {"format", "task", "step", "metrics_bytes", "wall_seconds",
//                          "state"}
//
// Written to a temporary directory, every file and the directory fsynced, then renamed: a
// checkpoint of that name is complete, whatever killed the process.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lab/run/checkpoint_state.h"
#include "lab/run/task.h"

namespace pion::lab {

// Steps of the complete checkpoints in `directory`, ascending; [] if there is none.
std::vector<std::int64_t> checkpoint_steps(const std::filesystem::path& directory);

// Writes checkpoint `head.step` below `directory` and removes all but the newest `keep`.
// On an error (std::runtime_error, such as a full disk) the temporary is removed and the
// earlier checkpoints are as they were.
void save_checkpoint(const std::filesystem::path& directory, const CheckpointHead& head,
                     Task& task, const Optimizer& optimizer, std::int64_t keep);

// Removes what a killed save left behind.
void clean_checkpoints(const std::filesystem::path& directory);

// Reads and checks state.json of `path` (".../step_N"). Throws std::invalid_argument with
// file and remedy.
Checkpoint read_checkpoint(const std::filesystem::path& path, const std::string& task);

// Model only, for evaluation.
void load_checkpoint_model(const Checkpoint& checkpoint, Task& task);
// Everything. Throws std::invalid_argument with the file if it is damaged or of another
// run.
void load_checkpoint(const Checkpoint& checkpoint, Task& task, Optimizer& optimizer);

}  // namespace pion::lab
