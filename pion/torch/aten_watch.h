// SPDX-License-Identifier: Apache-2.0
// What there is to warn of on devices that nobody waits for.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pion/torch/aten_batch.h"

namespace pion {

// What a map passed of the matrices of a piece's parameters.
struct PassedRows {
  Piece piece;
  at::Tensor rows;        // (matrices, 2), f32: ||D||, ||O||_F^2
  double directions = 0;  // of one matrix
  double half_pass = 0;   // see UpdateStatistics
};

// Every tenth step of a parameter is asked what its map passes, which costs a product.
inline constexpr std::int64_t kLookEvery = 10;
inline bool is_looked_at(const ParameterStep& step) {
  return step.state->rounds % kLookEvery == 0;
}

// Copies the counters of a step to the host without waiting and reads them when they have
// come, a step later as a rule. On devices without events, which are neither CUDA's nor
// XPU's, counters of steps are read every hundredth step, and that waits.
class AtenWatch {
 public:
  // Finds a parameter's state by its TensorImpl, or null: it may be gone by then.
  using Lookup = std::function<ParameterState*(const void*)>;

  // Warnings of the step that was recorded last, each once a parameter.
  std::vector<std::string> read(const Lookup& state_of);
  // Does nothing while an earlier record is under way; counters lose nothing by that.
  void record(std::span<const ParameterStep> steps, std::span<const PassedRows> passed);

 private:
  struct Counted {
    const void* key;
    std::string name;
    std::int64_t rounds;  // steps begun
  };
  struct Passed {
    const void* key;
    std::string name;
    Rule rule;
    std::int64_t matrices;
    double directions, half_pass;
  };
  struct Record {
    std::vector<Counted> counted;
    std::vector<Passed> passed;
    at::Tensor counts, rows;  // on the host
    std::unique_ptr<c10::Event> arrival;
  };

  void send(const at::Device& device, std::span<const ParameterStep> steps,
            std::span<const PassedRows> passed);
  static void read_counts(const Record& record, const Lookup& state_of,
                          std::vector<std::string>& messages);
  static void read_passed(const Record& record, const Lookup& state_of,
                          std::vector<std::string>& messages);

  std::vector<Record> records_;  // one a device
  std::int64_t steps_ = 0;
};

}  // namespace pion
