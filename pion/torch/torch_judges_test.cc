// SPDX-License-Identifier: Apache-2.0
// Python's torch.optim.AdamW, SGD and Muon step by step (tests/vectors/torch_optim.json).
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "pion/torch/optimizer.h"
#include "pion/torch/options.h"

namespace pion {
namespace {

using Json = nlohmann::json;
constexpr double kUnit = 0x1p-24;  // rounding of f32

// As numbers() in make_torch_optim.py.
torch::Tensor numbers(at::IntArrayRef shape, std::uint32_t seed) {
  torch::Tensor result = torch::empty(shape);
  std::uint32_t state = seed * 2654435761u + 12345u;
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    state = state * 1664525u + 1013904223u;
    result.data_ptr<float>()[i] = (static_cast<float>(state >> 16) - 32768.0f) / 32768.0f;
  }
  return result;
}

std::unique_ptr<GroupOptions> options_of(const Json& one) {
  std::unique_ptr<GroupOptions> options =
      make_options(make_rule(one["rule"].get<std::string>()));
  if (one["rule"] == "muon") options->set("precision", "f32");  // judged in double
  for (const auto& [key, value] : one["keys"].items()) {
    if (key == "betas") {
      options->set("beta1", value[0].get<double>()).set("beta2", value[1].get<double>());
    } else if (key == "maximize") {
      static_cast<AdamWOptions&>(*options).maximize(value.get<bool>());
    } else if (key == "adjust_lr_fn") {
      options->set("scale", value.get<std::string>());
    } else if (key == "decoupled_weight_decay") {
      options->set("weight_decay", value.get<double>());
    } else if (value.is_boolean()) {
      options->set(key, value.get<bool>());
    } else {
      options->set(key, value.get<double>());
    }
  }
  return options;
}

struct Trajectory {
  std::vector<torch::Tensor> ours,
      theirs;  // weights before the first step and after each
};

Trajectory run(const Json& one) {
  const auto shape = one["shape"].get<std::vector<std::int64_t>>();
  torch::Tensor weight = numbers(shape, 1).requires_grad_();
  std::vector<torch::optim::OptimizerParamGroup> groups;
  if (one["rule"] == "sgd" && one["keys"].contains("maximize")) {
    auto options = SgdOptions(one["keys"]["lr"]).momentum(one["keys"]["momentum"]);
    options.dampening(one["keys"]["dampening"]).maximize(true);
    groups.push_back({{weight}, std::make_unique<SgdOptions>(options)});
  } else {
    groups.push_back({{weight}, options_of(one)});
  }
  Optimizer optimizer(groups);
  Trajectory result{{weight.detach().clone()}, {weight.detach().clone()}};
  for (std::size_t step = 0; step < one["weights"].size(); ++step) {
    weight.mutable_grad() = numbers(shape, 100 + static_cast<std::uint32_t>(step));
    optimizer.step();
    result.ours.push_back(weight.detach().clone());
    result.theirs.push_back(
        torch::tensor(one["weights"][step].get<std::vector<float>>()).reshape(shape));
  }
  return result;
}

Json cases(const std::string& rule) {
  std::ifstream file("tests/vectors/torch_optim.json");
  const Json document = Json::parse(file);
  Json chosen = Json::array();
  for (const Json& one : document["cases"]) {
    if (one["rule"] == rule) chosen.push_back(one);
  }
  return chosen;
}

// Each step rounds the weight three times (|w| < 2) and the update, at most 3 lr for
// AdamW, some ten times. Rounding of the averaged gradient, 2 kUnit max|g| a step, lives
// 1 / (1 - beta1) = 10 steps, and sqrt(v) is at least max|g| / sqrt(20) while that
// gradient is remembered: together below 20 * sqrt(20) + 30 < 128 units of lr.
double elementwise_tolerance(std::size_t step, double lr) {
  return static_cast<double>(step) * kUnit * (3 * 2.0 + 128 * lr);
}

void expect_same_trajectories(const std::string& rule) {
  const Json chosen = cases(rule);
  ASSERT_GE(chosen.size(), 12u);
  for (const Json& one : chosen) {
    const auto [ours, theirs] = run(one);
    for (std::size_t step = 1; step < ours.size(); ++step) {
      const double error = (ours[step] - theirs[step]).abs().max().item<double>();
      EXPECT_LE(error, elementwise_tolerance(step, one["keys"]["lr"]))
          << one["keys"] << one["shape"] << " step " << step;
    }
  }
}

TEST(TorchJudges, AdamWAgreesStepByStep) { expect_same_trajectories("adamw"); }

// SGD's update is the momentum, at most 10 lr, rounded a few times: within the same
// bound.
TEST(TorchJudges, SgdAgreesStepByStep) { expect_same_trajectories("sgd"); }

// What a step moved, without the decay, in units of lr s: the direction O.
torch::Tensor direction(const torch::Tensor& before, const torch::Tensor& after,
                        const Json& keys, at::IntArrayRef shape) {
  const double lr = keys["lr"], decay = keys["weight_decay"];
  const double rows = static_cast<double>(shape[0]), cols = static_cast<double>(shape[1]);
  const double scale = keys["adjust_lr_fn"] == "original"
                           ? std::sqrt(std::max(1.0, rows / cols))
                           : 0.2 * std::sqrt(std::max(rows, cols));
  const auto b = before.to(torch::kDouble), a = after.to(torch::kDouble);
  return (b * (1 - lr * decay) - a) / (lr * scale);
}

// torch iterates in bf16: five steps, three roundings of 2^-9 each, on sums whose terms
// are up to 3.4445 + 4.775 + 2.0315 = 10.25 times the result; independent, so they add as
// squares do.
TEST(TorchJudges, MuonAgreesAtThePrecisionOfBfloat16) {
  const double tolerance = 10.25 * 0x1p-9 * std::sqrt(5.0 * 3.0);
  const Json chosen = cases("muon");
  ASSERT_EQ(chosen.size(), 12u);
  for (const Json& one : chosen) {
    const auto [ours, theirs] = run(one);
    for (std::size_t step = 1; step < ours.size(); ++step) {
      const auto shape = ours[step].sizes();
      const auto o = direction(ours[step - 1], ours[step], one["keys"], shape);
      const auto t = direction(theirs[step - 1], theirs[step], one["keys"], shape);
      EXPECT_LE((o - t).norm().item<double>(), tolerance * t.norm().item<double>())
          << one["keys"] << one["shape"] << " step " << step;
    }
  }
}

// Muon's definition in f64. The f32 result may differ by the roundings of X, amplified by
// the map's slope at 0, 484.9, and 5 x 3 roundings on sums of 10.25 times their result;
// the weight difference is divided by lr s >= 0.05 * 0.69, |w| < 2.
TEST(TorchJudges, MuonAgreesWithItsDefinitionInDouble) {
  for (const Json& one : cases("muon")) {
    const auto ours = run(one).ours;
    const bool nesterov = one["keys"]["nesterov"];
    const double mu = one["keys"]["momentum"];
    const auto shape = ours[0].sizes();
    torch::Tensor m = torch::zeros(shape, torch::kDouble);
    for (std::size_t step = 1; step < ours.size(); ++step) {
      const auto g =
          numbers(shape, 99 + static_cast<std::uint32_t>(step)).to(torch::kDouble);
      m = mu * m + (1 - mu) * g;
      torch::Tensor x = nesterov ? mu * m + (1 - mu) * g : m;
      x = x / x.norm();
      for (int i = 0; i < 5; ++i) {
        const auto a = x.matmul(x.t());
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a.matmul(a)).matmul(x);
      }
      const auto o = direction(ours[step - 1], ours[step], one["keys"], shape);
      const double entries = std::sqrt(static_cast<double>(x.numel()));
      const double tolerance =
          kUnit * ((3 * 484.9 + 15 * 10.25) * x.norm().item<double>() +
                   3 * 2.0 / (0.05 * 0.69) * entries);
      EXPECT_LE((o - x).norm().item<double>(), tolerance)
          << one["keys"] << " step " << step;
    }
  }
}

}  // namespace
}  // namespace pion
