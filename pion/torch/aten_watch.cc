// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_watch.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "pion/optim/step_checks.h"

namespace pion {
namespace {

bool has_events(const at::Device& device) { return device.is_cuda() || device.is_xpu(); }

const void* key_of(const ParameterStep& step) {
  return step.parameter.unsafeGetTensorImpl();
}

// On the host when the device comes to it; from a device without events at once.
at::Tensor sent(const at::Tensor& value) {
  if (!has_events(value.device())) return value.cpu();
  const at::Tensor host = at::empty(
      value.sizes(),
      at::TensorOptions(value.scalar_type()).device(at::kCPU).pinned_memory(true));
  return host.copy_(value, /*non_blocking=*/true);
}

// The figures of one matrix that was looked at.
UpdateStatistics figures_of(const float* row, double directions, double half_pass) {
  return {.gradient_norm = row[0],
          .directions_passed = row[1],
          .directions = directions,
          .half_pass = half_pass};
}

}  // namespace

std::vector<std::string> AtenWatch::read(const Lookup& state_of) {
  std::vector<std::string> messages;
  std::erase_if(records_, [&](const Record& record) {
    if (record.arrival && !record.arrival->query()) return false;
    read_counts(record, state_of, messages);
    read_passed(record, state_of, messages);
    return true;
  });
  return messages;
}

void AtenWatch::read_counts(const Record& record, const Lookup& state_of,
                            std::vector<std::string>& messages) {
  for (std::size_t i = 0; i < record.counted.size(); ++i) {
    const Counted& one = record.counted[i];
    ParameterState* const state = state_of(one.key);
    if (state == nullptr) continue;
    const std::int64_t count = record.counts.const_data_ptr<std::int64_t>()[i];
    const std::int64_t begun = one.rounds - state->seen_rounds;
    const std::int64_t skipped = begun - (count - state->seen_steps);
    // of a loaded state: compared from here on
    if (state->seen_rounds >= 0 && skipped > 0 && !state->warned_of_skip) {
      state->warned_of_skip = true;
      messages.push_back(
          "step: " + std::to_string(skipped) + " of the last " + std::to_string(begun) +
          " steps left out " + one.name +
          ", whose gradient (or state) held NaN or Inf, as will every one that does. "
          "Lower the learning rate or look for a division by zero");
    }
    state->seen_rounds = one.rounds, state->seen_steps = count;
  }
}

void AtenWatch::read_passed(const Record& record, const Lookup& state_of,
                            std::vector<std::string>& messages) {
  if (record.passed.empty()) return;
  const float* row = record.rows.const_data_ptr<float>();
  for (const Passed& one : record.passed) {
    std::vector<UpdateStatistics> matrices;
    for (std::int64_t k = 0; k < one.matrices; ++k, row += 2)
      matrices.push_back(figures_of(row, one.directions, one.half_pass));
    ParameterState* const state = state_of(one.key);
    if (state == nullptr) continue;
    const UpdateStatistics all = combine(matrices);
    // the steps in between count like the one that was looked at
    for (std::int64_t i = 0; i < kLookEvery; ++i) {
      std::string message = state->watch.observe(one.name, one.rule, all, matrices);
      if (!message.empty()) messages.push_back(std::move(message));
    }
  }
}

void AtenWatch::record(std::span<const ParameterStep> steps,
                       std::span<const PassedRows> passed) {
  ++steps_;
  std::vector<at::Device> devices;
  for (const ParameterStep& step : steps) {
    const at::Device device = step.parameter.device();
    if (std::find(devices.begin(), devices.end(), device) == devices.end())
      devices.push_back(device);
  }
  constexpr std::int64_t kFirst = 10, kEvery = 100;  // where reading waits
  for (const at::Device& device : devices) {
    if (!has_events(device) && !device.is_cpu() && steps_ % kEvery != kFirst) continue;
    const bool under_way =
        std::any_of(records_.begin(), records_.end(), [&](const Record& own) {
          return own.arrival && own.arrival->device() == device;
        });
    if (!under_way) send(device, steps, passed);
  }
}

void AtenWatch::send(const at::Device& device, std::span<const ParameterStep> steps,
                     std::span<const PassedRows> passed) {
  Record record;
  std::vector<at::Tensor> counts, rows;
  for (const ParameterStep& step : steps) {
    if (step.parameter.device() != device) continue;
    counts.push_back(step.state->step);
    record.counted.push_back({key_of(step), step.name, step.state->rounds});
  }
  for (const PassedRows& one : passed) {
    if (one.rows.device() != device) continue;
    rows.push_back(one.rows);
    const std::int64_t matrices =
        one.rows.size(0) / static_cast<std::int64_t>(one.piece.steps.size());
    for (const ParameterStep* step : one.piece.steps) {
      record.passed.push_back({key_of(*step), step->name, *step->rule, matrices,
                               one.directions, one.half_pass});
    }
  }
  record.counts = sent(at::stack(counts));
  if (!rows.empty()) record.rows = sent(at::cat(rows));
  if (has_events(device)) {
    record.arrival = std::make_unique<c10::Event>(device.type());
    record.arrival->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  }
  records_.push_back(std::move(record));
}

}  // namespace pion
