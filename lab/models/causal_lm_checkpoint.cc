// SPDX-License-Identifier: Apache-2.0
#include "lab/models/causal_lm_checkpoint.h"

#include <utility>

namespace pion::lab {
namespace {

using Call = std::function<torch::Tensor(const torch::Tensor&)>;

// What the backward pass needs besides tensors.
struct Recomputation : torch::CustomClassHolder {
  Call call;
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& x, at::TensorList parameters,
                               const c10::intrusive_ptr<Recomputation>& recipe) {
    torch::autograd::variable_list saved = {x};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    context->save_for_backward(saved);
    context->saved_data["recipe"] = c10::IValue::make_capsule(recipe);
    return recipe->call(x);  // autograd is off in here
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      const torch::autograd::variable_list& gradients) {
    torch::autograd::variable_list inputs = context->get_saved_variables();
    const auto recipe = c10::static_intrusive_pointer_cast<Recomputation>(
        context->saved_data["recipe"].toCapsule());
    const bool needs_x = context->needs_input_grad(0);
    torch::autograd::variable_list wanted;
    std::vector<std::size_t> places;
    const torch::Tensor x = inputs[0].detach().requires_grad_(needs_x);
    inputs[0] = x;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      if (inputs[i].requires_grad()) {
        wanted.push_back(inputs[i]);
        places.push_back(i);
      }
    torch::autograd::variable_list all(inputs.size() + 1);  // none for the recipe
    if (wanted.empty()) return all;
    torch::Tensor again;
    {
      const torch::AutoGradMode on(true);
      again = recipe->call(x);
    }
    const auto found = torch::autograd::grad({again}, wanted, gradients,
                                             /*retain_graph=*/std::nullopt,
                                             /*create_graph=*/false,
                                             /*allow_unused=*/true);
    for (std::size_t i = 0; i < places.size(); ++i) all[places[i]] = found[i];
    return all;
  }
};

}  // namespace

torch::Tensor checkpointed(const torch::Tensor& x,
                           const std::vector<torch::Tensor>& parameters, Call call) {
  auto recipe = c10::make_intrusive<Recomputation>();
  recipe->call = std::move(call);
  return Checkpoint::apply(x, at::TensorList(parameters), recipe);
}

}  // namespace pion::lab
