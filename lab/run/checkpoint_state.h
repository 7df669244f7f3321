// SPDX-License-Identifier: Apache-2.0
// state.json of a checkpoint, read without LibTorch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "lab/run/task_info.h"

namespace pion::lab {

inline constexpr std::uint64_t kCheckpointFormat = 1;

struct CheckpointHead {
  std::string task;
  std::int64_t step = 0;            // updates done
  std::uint64_t metrics_bytes = 0;  // length of metrics.jsonl at that time
  double wall_seconds = 0;          // of the run so far
};

struct Checkpoint {
  std::filesystem::path path;
  CheckpointHead head;
  Json task_state;
};

// From the text of state.json; the path stays empty. Throws std::invalid_argument that
// begins with `where`.
Checkpoint parse_checkpoint_state(std::string_view text, const std::string& where);

}  // namespace pion::lab
