// SPDX-License-Identifier: Apache-2.0
// Question  What does one optimizer step cost, on the policies that the lab trains and on
//           a small language model's layer, next to LibTorch's own AdamW and SGD?
// Run       build/release/benchmarks/optimizer_step
//             --benchmark_enable_random_interleaving=true
//             --benchmark_repetitions=9 --benchmark_report_aggregates_only=true
// Results   docs/results/speed.md

#include <benchmark/benchmark.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>
#include <torch/torch.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pion/torch/pion.h"

namespace {

struct Shapes {
  std::string name;
  std::vector<std::vector<std::int64_t>> matrices;
};

// Hidden matrices only: what the matrix rule steps.
std::vector<Shapes> shape_sets() {
  Shapes policy{"policy_d64_2_layers", {}};
  for (int layer = 0; layer < 2; ++layer) {
    for (int projection = 0; projection < 4; ++projection)
      policy.matrices.push_back({64, 64});
    policy.matrices.push_back({256, 64});
    policy.matrices.push_back({64, 256});
  }
  return {policy,
          {"square_256", {{256, 256}}},
          {"qkvo_1024", {{1024, 1024}, {256, 1024}, {256, 1024}, {1024, 1024}}},
          {"mlp_1024x3072", {{3072, 1024}, {1024, 3072}}}};
}

using MakeOptimizer =
    std::function<std::unique_ptr<torch::optim::Optimizer>(std::vector<torch::Tensor>)>;

template <class Optimizer, class Options>
MakeOptimizer with(Options options) {
  return [options](std::vector<torch::Tensor> parameters) {
    return std::make_unique<Optimizer>(std::move(parameters), options);
  };
}

void optimizer_step(benchmark::State& state, const Shapes& shapes,
                    const MakeOptimizer& make, int threads) {
  at::set_num_threads(threads);
  torch::manual_seed(1);
  std::vector<torch::Tensor> parameters;
  for (const auto& shape : shapes.matrices) {
    parameters.push_back(torch::randn(shape).mul_(0.02).requires_grad_());
    parameters.back().mutable_grad() = torch::randn(shape);
  }
  const auto optimizer = make(parameters);
  optimizer->step();  // state is made here
  for (auto _ : state) optimizer->step();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace torch::optim;
  const std::vector<std::pair<std::string, MakeOptimizer>> optimizers = {
      {"pion", with<pion::Pion>(pion::PionOptions(1e-4))},
      {"muon", with<pion::Muon>(pion::MuonOptions(1e-4))},
      {"adamw", with<pion::AdamW>(pion::AdamWOptions(1e-4))},
      {"sgd", with<pion::Sgd>(pion::SgdOptions(1e-4))},
      {"libtorch_adamw", with<AdamW>(AdamWOptions(1e-4))},
      {"libtorch_sgd", with<SGD>(SGDOptions(1e-4).momentum(0.9))},
  };
  const std::vector<Shapes> sets = shape_sets();
  for (const Shapes& shapes : sets) {
    for (const auto& [name, make] : optimizers) {
      for (const int threads : {1, 2}) {
        benchmark::RegisterBenchmark(
            (shapes.name + "/" + name + "/threads:" + std::to_string(threads)).c_str(),
            [&, threads](benchmark::State& state) {
              optimizer_step(state, shapes, make, threads);
            })
            ->Unit(benchmark::kMicrosecond)
            ->UseRealTime();
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
