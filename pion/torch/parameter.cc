// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/parameter.h"

#include <ATen/MemoryOverlap.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdint>

#include "pion/torch/torch_error.h"

namespace pion {

MatrixShape matrix_shape(at::IntArrayRef sizes, Fold fold) {
  const auto n = sizes.size();
  if (n == 2 || fold != Fold::kStack)
    return {1, sizes[0], c10::multiply_integers(sizes.slice(1))};
  return {c10::multiply_integers(sizes.slice(0, n - 2)), sizes[n - 2], sizes[n - 1],
          /*stack=*/true};
}

namespace {

void check_type(const torch::Tensor& parameter, const std::string& name) {
  const at::ScalarType type = parameter.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kDouble || type == at::kBFloat16,
              "pion: a parameter must be float32, float64 or bfloat16, got ", name,
              " of ", type);
  TORCH_CHECK(parameter.layout() == at::kStrided, "pion: a parameter must be dense, got ",
              name, " with layout ", parameter.layout());
}

}  // namespace

void check_parameter(const torch::Tensor& parameter, const GroupOptions& options,
                     const std::string& name) {
  check_type(parameter, name);
  TORCH_CHECK(at::has_internal_overlap(parameter) != at::MemOverlap::Yes,
              "pion: every entry of a parameter must have memory of its own, got ", name,
              " of shape ", parameter.sizes(), " and strides ", parameter.strides(),
              "; make it with .clone() instead of .expand()");
  if (!is_matrix_rule(options.rule())) return;
  TORCH_CHECK(parameter.dim() >= 2, "pion: a parameter under rule ",
              rule_name(options.rule()), " must have two dimensions or more, got ", name,
              " of shape ", parameter.sizes(),
              "; put it in a group with AdamWOptions or SgdOptions");
  TORCH_CHECK(parameter.dim() == 2 || options.fold() != Fold::kAutomatic,
              "pion: fold must be chosen for a weight of more than two dimensions, got ",
              name, " of shape ", parameter.sizes(),
              ": a stack of matrices and a convolution look alike; "
              ".fold(pion::Fold::kStack) or .fold(pion::Fold::kConvolution)");
  const MatrixShape shape = matrix_shape(parameter.sizes(), options.fold());
  if (parameter.numel() == 0) return;  // no block of it has a shape
  try {
    for (const Block& block : head_blocks(options.layout(), shape.rows, shape.cols)) {
      rule_map(options.rule(), block.rows, block.cols);
    }
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK(false, error.what(), " (parameter ", name, " of shape ",
                parameter.sizes(), ")");
  }
}

void check_gradient(const torch::Tensor& parameter, const std::string& name) {
  const torch::Tensor& gradient = parameter.grad();
  TORCH_CHECK(gradient.layout() == at::kStrided,
              "step: a gradient must be dense, got layout ", gradient.layout(), " for ",
              name, "; make the embedding with sparse(false)");
  TORCH_CHECK(gradient.sizes() == parameter.sizes(), "step: the gradient of ", name,
              " must have the parameter's shape ", parameter.sizes(), ", got ",
              gradient.sizes());
  TORCH_CHECK(gradient.device() == parameter.device(), "step: the gradient of ", name,
              " must be on the parameter's device ", parameter.device(), ", got ",
              gradient.device());
  TORCH_CHECK(gradient.is_floating_point(), "step: the gradient of ", name,
              " must be real, of floating point, got ", gradient.scalar_type());
}

void check_apart(std::span<const torch::Tensor> parameters,
                 std::span<const std::string> names, std::string_view where) {
  struct Memory {
    std::uintptr_t first, last;
    std::size_t index;
  };
  std::vector<Memory> memories;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const torch::Tensor& own = parameters[i];
    if (own.numel() == 0 || own.is_meta() || !own.has_storage()) continue;
    const auto first = reinterpret_cast<std::uintptr_t>(own.const_data_ptr());
    // of memory with gaps the first entry alone is known to be its own
    const bool dense = own.is_non_overlapping_and_dense();
    const std::size_t bytes = own.element_size() * (dense ? own.numel() : 1);
    if (first != 0) memories.push_back({first, first + bytes, i});
  }
  std::sort(memories.begin(), memories.end(),
            [](const Memory& a, const Memory& b) { return a.first < b.first; });
  const Memory* furthest = nullptr;
  for (const Memory& own : memories) {
    const bool overlap =
        furthest != nullptr && own.first < furthest->last &&
        parameters[own.index].device() == parameters[furthest->index].device();
    if (overlap) {
      const auto [first, second] = std::minmax(own.index, furthest->index);
      TORCH_CHECK(false, where, ": every parameter must have memory of its own, got ",
                  names[second], " in that of ", names[first],
                  "; give each parameter once, and tied ones as one");
    }
    if (furthest == nullptr || own.last > furthest->last) furthest = &own;
  }
}

at::ScalarType work_type(const torch::Tensor& parameter) {
  return parameter.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

void move_state(ParameterState& state, const torch::Tensor& parameter) {
  for (torch::Tensor* buffer : {&state.momentum_buffer, &state.exp_avg, &state.exp_avg_sq,
                                &state.master, &state.step}) {
    if (buffer->defined() && buffer->device() != parameter.device())
      *buffer = buffer->to(parameter.device());
  }
}

void check_state(const ParameterState& state, const torch::Tensor& parameter,
                 const std::string& name) {
  check_type(parameter, name);
  TORCH_CHECK(!state.master.defined() || parameter.scalar_type() == at::kBFloat16,
              "step: ", name, " must stay ", at::kBFloat16,
              ", of which its state keeps a master copy, got ", parameter.scalar_type(),
              "; change modules before their optimizer is made, or make a new one");
  const at::ScalarType type = work_type(parameter);
  for (const torch::Tensor* buffer :
       {&state.momentum_buffer, &state.exp_avg, &state.exp_avg_sq, &state.master}) {
    if (!buffer->defined()) continue;
    const bool fits = buffer->sizes() == parameter.sizes() &&
                      buffer->scalar_type() == type &&
                      buffer->device() == parameter.device();
    TORCH_CHECK(fits, "step: ", name,
                " was changed after its first step: its state is of ", "shape ",
                buffer->sizes(), ", ", buffer->scalar_type(), " on ", buffer->device(),
                ", the parameter now of shape ", parameter.sizes(), ", ",
                parameter.scalar_type(), " on ", parameter.device(),
                ". Change modules before their optimizer is made, or make a new one");
  }
}

void fill_state(ParameterState& state, const torch::Tensor& parameter,
                const GroupOptions& options) {
  const auto like = parameter.options().dtype(work_type(parameter)).requires_grad(false);
  const auto fill = [&](torch::Tensor& buffer) {
    if (!buffer.defined()) buffer = torch::zeros(parameter.sizes(), like);
  };
  if (!state.step.defined()) {
    state.step = torch::zeros({}, like.dtype(at::kLong));
    state.seen_rounds = state.rounds;
  }
  if (std::holds_alternative<AdamWRule>(options.rule())) {
    fill(state.exp_avg);
    fill(state.exp_avg_sq);
  } else if (const auto* sgd = std::get_if<SgdRule>(&options.rule())) {
    if (sgd->momentum > 0) fill(state.momentum_buffer);
  } else {
    if (!state.momentum_buffer.defined()) state.momentum_is_finite = true;  // zeros
    fill(state.momentum_buffer);
  }
  const bool master = parameter.scalar_type() == at::kBFloat16 &&
                      options.low_precision() == LowPrecision::kMasterCopy;
  if (master && !state.master.defined()) {
    state.master = parameter.detach().to(at::kFloat).contiguous();
  }
}

}  // namespace pion
