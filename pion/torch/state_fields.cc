// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/state_fields.h"

#include <ATen/ATen.h>

namespace pion {
namespace {

struct Field {
  const char* name;
  torch::Tensor ParameterState::* member;
};
constexpr Field kFields[] = {{"momentum_buffer", &ParameterState::momentum_buffer},
                             {"exp_avg", &ParameterState::exp_avg},
                             {"exp_avg_sq", &ParameterState::exp_avg_sq},
                             {"master", &ParameterState::master},
                             {"step", &ParameterState::step}};
constexpr std::int64_t kCounters = 4;

void check_field(const torch::Tensor& got, const torch::Tensor& wanted,
                 const std::string& name) {
  TORCH_CHECK(got.defined() && got.layout() == at::kStrided, "load: ", name,
              " must be a dense tensor, got something else");
  TORCH_CHECK(got.sizes() == wanted.sizes(), "load: ", name, " must have shape ",
              wanted.sizes(), ", got ", got.sizes(),
              "; the file belongs to another model");
  TORCH_CHECK(got.scalar_type() == wanted.scalar_type(), "load: ", name,
              " must have type ", wanted.scalar_type(), ", got ", got.scalar_type());
}

}  // namespace

std::map<std::string, torch::Tensor> state_fields(const ParameterState& state) {
  std::map<std::string, torch::Tensor> fields;
  for (const Field& field : kFields) {
    if ((state.*field.member).defined()) fields.emplace(field.name, state.*field.member);
  }
  fields.emplace("counters",
                 at::tensor({std::int64_t{state.watch.consecutive()},
                             std::int64_t{state.watch.warned()},
                             std::int64_t{state.warned_of_skip}, state.rounds}));
  return fields;
}

std::unique_ptr<ParameterState> state_from_fields(
    std::map<std::string, torch::Tensor> fields, const torch::Tensor& parameter,
    const GroupOptions& options, const std::string& name) {
  const at::NoGradGuard no_grad;
  auto state = std::make_unique<ParameterState>();
  fill_state(*state, parameter, options);  // what there must be
  state->momentum_is_finite = false;       // nobody has looked at what comes
  state->seen_rounds = -1;
  std::size_t known = 1;  // counters
  for (const Field& field : kFields) {
    torch::Tensor& own = *state.*field.member;
    const auto found = fields.find(field.name);
    if (!own.defined()) {
      // a buffer that these options do not need may be there: momentum set to 0 since
      if (found == fields.end()) continue;
      own = at::empty(parameter.sizes(), parameter.options().dtype(work_type(parameter)));
    }
    const std::string full = name + "." + field.name;
    TORCH_CHECK(found != fields.end(), "load: the state must hold ", full, ", got none");
    check_field(found->second, own, full);
    own = at::empty_like(own).copy_(found->second);
    ++known;
  }
  const auto steps = state->step.item<std::int64_t>();
  TORCH_CHECK(steps >= 0, "load: ", name, ".step must be >= 0, got ", steps);
  const auto counters = fields.find("counters");
  TORCH_CHECK(counters != fields.end(), "load: the state must hold ", name,
              ".counters, got none");
  check_field(counters->second, at::empty({kCounters}, at::kLong), name + ".counters");
  if (fields.size() != known) {
    for (const Field& field : kFields) fields.erase(field.name);
    fields.erase("counters");
    TORCH_CHECK(false, "load: the state must hold names that pion writes, got ", name,
                ".", fields.begin()->first);
  }
  const torch::Tensor values = counters->second.cpu().contiguous();
  const std::int64_t* count = values.data_ptr<std::int64_t>();
  state->watch.restore(static_cast<int>(count[0]), count[1] != 0);
  state->warned_of_skip = count[2] != 0;
  state->rounds = count[3];
  return state;
}

}  // namespace pion
