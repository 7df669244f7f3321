// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/cpu_step.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>

#include <algorithm>

#include "pion/task_lists.h"

namespace pion {
namespace {

static_assert(sizeof(bfloat16) == sizeof(c10::BFloat16));

// Calls work(i) for every i in [0, count) on LibTorch's own threads. at::parallel_for is
// an inline function that needs OpenMP where it is compiled, and that of LibTorch, whose
// loops inside are compiled already: one over the entries of a tensor of `count` bytes.
void on_threads_of_torch(int count, FunctionRef<void(int)> work) {
  const at::Tensor entries = at::empty({count}, at::kByte);
  const char* first = static_cast<const char*>(entries.const_data_ptr());
  at::TensorIterator iterator = at::TensorIterator::borrowing_nullary_op(entries);
  iterator.for_each(
      [&](char** data, const std::int64_t* strides, std::int64_t inner,
          std::int64_t outer) {
        for (std::int64_t j = 0; j < outer; ++j)
          for (std::int64_t i = 0; i < inner; ++i)
            work(static_cast<int>(data[0] + j * strides[1] + i * strides[0] - first));
      },
      /*grain_size=*/1);
}

class AtenExecutor : public Executor {
 public:
  int threads() const override { return std::max(1, at::get_num_threads()); }
  void run(int tasks, FunctionRef<void(int, int)> work) override {
    const int used = std::min(tasks, threads());
    if (used <= 1) {
      for (int task = 0; task < tasks; ++task) work(task, 0);
      return;
    }
    TaskLists lists(used);
    lists.deal(tasks);
    on_threads_of_torch(used, [&](int thread) {
      lists.take(thread, [&](int task) { work(task, thread); });
    });
  }
};

ElementType element_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return ElementType::kF64;
    case at::kFloat:
      return ElementType::kF32;
    default:
      return ElementType::kBf16;
  }
}

// A parameter's weight and gradient, or contiguous copies of them.
struct Contiguous {
  at::Tensor weight;
  at::Tensor gradient;  // f32 or bf16; f64 for f64 weights
};

Contiguous contiguous(const ParameterStep& step) {
  const at::ScalarType work = work_type(step.parameter);
  at::Tensor gradient = step.gradient;
  const bool as_it_is = gradient.scalar_type() == work ||
                        (work == at::kFloat && gradient.scalar_type() == at::kBFloat16);
  if (!as_it_is) gradient = gradient.to(work);
  return {step.parameter.detach().contiguous(), gradient.contiguous()};
}

void* pointer(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr() : nullptr;
}

ParameterUpdate update_of(const ParameterStep& step, const Contiguous& tensors) {
  const ParameterState& state = *step.state;
  const MatrixShape shape =
      is_matrix_rule(*step.rule)
          ? matrix_shape(step.parameter.sizes(), step.options->fold())
          : MatrixShape{1, 1, step.parameter.numel()};
  ParameterUpdate update;
  update.rule = step.rule;
  update.layout = step.options->layout();
  update.count = shape.count, update.rows = shape.rows, update.cols = shape.cols;
  update.weight_type = element_type(tensors.weight);
  update.gradient_type = element_type(tensors.gradient);
  update.weight = pointer(tensors.weight);
  update.gradient = tensors.gradient.const_data_ptr();
  update.momentum = pointer(state.momentum_buffer);
  update.exp_avg = pointer(state.exp_avg);
  update.exp_avg_sq = pointer(state.exp_avg_sq);
  update.master = static_cast<float*>(pointer(state.master));
  update.low_precision = step.options->low_precision();
  update.seed = step.seed;
  update.step = *state.step.data_ptr<std::int64_t>() + 1;
  update.maximize = step.options->maximize();
  update.stack = shape.stack;
  update.name = step.name;
  // zeros before the first step
  update.momentum_is_finite = state.momentum_is_finite || update.step == 1;
  return update;
}

}  // namespace

void cpu_step(std::span<ParameterStep> steps, bool collect_spectrum,
              StepWorkspaces& workspaces) {
  std::vector<Contiguous> tensors;
  std::vector<ParameterUpdate> updates;
  tensors.reserve(steps.size());
  updates.reserve(steps.size());
  for (const ParameterStep& step : steps) {
    tensors.push_back(contiguous(step));
    updates.push_back(update_of(step, tensors.back()));
  }
  AtenExecutor executor;
  workspaces.collect_spectrum = collect_spectrum;
  step_all(updates, executor, workspaces);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    ParameterStep& step = steps[i];
    step.result = updates[i].result;
    if (updates[i].stack) {
      step.matrices.assign(updates[i].matrices.begin(), updates[i].matrices.end());
    }
    if (step.result.skipped) continue;
    // nobody has looked at that of an idle matrix
    if (step.result.idle == 0) step.state->momentum_is_finite = true;
    const at::Tensor& weight = tensors[i].weight;
    if (weight.is_alias_of(step.parameter))
      step.parameter.unsafeGetTensorImpl()->bump_version();
    else
      step.parameter.detach().copy_(weight);
    ++*step.state->step.data_ptr<std::int64_t>();
  }
}

}  // namespace pion
