// SPDX-License-Identifier: Apache-2.0
// Fits a linear layer with Pion; returns 0 if the loss fell to a tenth.
#include <pion/torch/pion.h>
#include <torch/torch.h>

#include <iostream>

int main() {
  torch::manual_seed(1);
  const auto inputs = torch::randn({256, 16}),
             targets = inputs.matmul(torch::randn({16, 4}));
  torch::nn::Linear model(torch::nn::LinearOptions(16, 4).bias(false));
  pion::Pion optimizer(model->parameters(),
                       pion::PionOptions(0.1).cutoff(0.1).momentum(0.5));
  const auto loss = [&] {
    optimizer.zero_grad();
    auto value = torch::mse_loss(model(inputs), targets);
    value.backward();
    return value;
  };
  const double first = loss().item<double>();
  for (int step = 0; step < 200; ++step) optimizer.step(loss);
  const double last = loss().item<double>();
  std::cout << "loss " << first << " -> " << last << '\n';
  return last < 0.1 * first ? 0 : 1;
}
