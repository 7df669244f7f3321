// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <sstream>

#include "pion/torch/one_rule.h"

namespace pion {
namespace {

using Group = torch::optim::OptimizerParamGroup;

struct Training {
  std::vector<torch::Tensor> parameters;
  std::unique_ptr<Optimizer> optimizer;

  explicit Training(double lr = 0.1) {
    torch::manual_seed(1);
    parameters = {torch::randn({8, 6}), torch::randn({5}), torch::randn({4, 4}),
                  torch::randn({8, 8}).to(torch::kBFloat16),
                  torch::randn({8, 8}).to(torch::kBFloat16)};
    for (auto& p : parameters) p.requires_grad_();
    const auto bf16 = MuonOptions(lr).low_precision(LowPrecision::kStochastic);
    std::vector<Group> groups;
    auto heads = PionOptions(lr).scale(Scale::kOriginal);
    heads.set_layout({.heads = {2}, .transposed = true});
    groups.push_back({{parameters[0]}, std::make_unique<PionOptions>(heads)});
    groups.push_back({{parameters[1]}, std::make_unique<AdamWOptions>(lr)});
    groups.push_back({{parameters[2]}, std::make_unique<SgdOptions>(lr)});
    groups.push_back({{parameters[3]}, std::make_unique<MuonOptions>(lr)});
    groups.push_back({{parameters[4]}, std::make_unique<MuonOptions>(bf16)});
    optimizer = std::make_unique<Optimizer>(groups);
    optimizer->set_seed(5);
  }

  void run(int from, int to) {
    for (int step = from; step < to; ++step) {
      torch::manual_seed(step);
      for (auto& p : parameters) p.mutable_grad() = torch::randn(p.sizes()).to(p.dtype());
      optimizer->step();
    }
  }
  void take_weights(const Training& other) {
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < parameters.size(); ++i)
      parameters[i].copy_(other.parameters[i]);
  }
  bool same_weights(const Training& other) const {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (!parameters[i].equal(other.parameters[i])) return false;
    }
    return true;
  }
};

std::string saved(const Optimizer& optimizer) {
  std::ostringstream stream;
  torch::save(optimizer, stream);
  return stream.str();
}

void load(Optimizer& optimizer, const std::string& bytes) {
  std::istringstream stream(bytes);
  torch::load(optimizer, stream);
}

TEST(Checkpoint, TorchSaveContinuesBitForBitWithItsOptions) {
  Training whole, half(0.05);
  whole.optimizer->param_groups()[1].options().set_lr(0.02);
  whole.optimizer->set_lr_factor(0.5);
  whole.run(0, 4);
  half.take_weights(whole);
  load(*half.optimizer, saved(*whole.optimizer));
  EXPECT_EQ(half.optimizer->param_groups()[1].options().get_lr(), 0.02);
  EXPECT_EQ(half.optimizer->lr_factor(), 0.5);
  whole.run(4, 8);
  half.run(4, 8);
  EXPECT_TRUE(half.same_weights(whole));
}

TEST(Checkpoint, StateTensorsContinueBitForBit) {
  Training whole, half;
  whole.run(0, 4);
  half.take_weights(whole);
  std::map<std::string, torch::Tensor> tensors;
  for (const auto& [name, tensor] : whole.optimizer->state_tensors())
    tensors[name] = tensor.clone();
  EXPECT_EQ(tensors.count("groups.0.params.0.momentum_buffer"), 1u);
  EXPECT_EQ(tensors.count("groups.1.params.0.exp_avg_sq"), 1u);
  EXPECT_EQ(tensors.count("groups.3.params.0.master"), 1u);
  EXPECT_EQ(tensors.count("groups.4.params.0.master"), 0u);
  half.optimizer->load_state_tensors(tensors);
  whole.run(4, 8);
  half.run(4, 8);
  EXPECT_TRUE(half.same_weights(whole));
}

TEST(Checkpoint, NamesFollowTheParameters) {
  Training training;
  training.optimizer->set_names({{"layers.0.weight", training.parameters[0]}});
  training.run(0, 1);
  EXPECT_EQ(training.optimizer->state_tensors().count("layers.0.weight.momentum_buffer"),
            1u);
}

// Whatever is refused leaves the optimizer as it was: it then continues like one that
// never tried.
template <class Break>
void expect_refused(const std::string& part, Break breaking) {
  Training tried, untouched;
  tried.run(0, 3), untouched.run(0, 3);
  try {
    breaking(tried);
    ADD_FAILURE() << "nothing was thrown: " << part;
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
  tried.run(3, 5), untouched.run(3, 5);
  EXPECT_TRUE(tried.same_weights(untouched)) << part;
}

TEST(Checkpoint, RefusesTruncatedAndForeignFiles) {
  Training source;
  source.run(0, 2);
  const std::string good = saved(*source.optimizer);
  for (const std::size_t size :
       {good.size() / 4, good.size() / 2, good.size() - 1, std::size_t{0}}) {
    expect_refused("", [&](Training& t) { load(*t.optimizer, good.substr(0, size)); });
  }
  std::ostringstream adam, tensor;
  torch::save(torch::optim::Adam({torch::ones({2, 2}).requires_grad_()}), adam);
  torch::save(torch::ones({2, 2}), tensor);
  expect_refused("must hold a pion optimizer",
                 [&](Training& t) { load(*t.optimizer, adam.str()); });
  expect_refused("must hold a pion optimizer",
                 [&](Training& t) { load(*t.optimizer, tensor.str()); });
}

TEST(Checkpoint, RefusesFilesOfAnotherOptimizer) {
  Training source;
  source.run(0, 2);
  torch::Tensor w = torch::ones({2, 2}).requires_grad_();
  Muon fewer({w}, MuonOptions(0.1));
  expect_refused("number of groups",
                 [&](Training& t) { load(*t.optimizer, saved(fewer)); });
  auto groups = [&](at::IntArrayRef shape, bool muon) {
    std::vector<Group> result;
    for (const auto& g : source.optimizer->param_groups()) result.push_back(g);
    std::vector<torch::Tensor> first = {torch::ones(shape).requires_grad_()};
    if (muon) {
      result[0] = Group(first, std::make_unique<MuonOptions>(0.1));
    } else {
      result[0] = Group(first, std::make_unique<PionOptions>(0.1));
    }
    return result;
  };
  Optimizer other_shape(groups({6, 8}, false)), other_rule(groups({8, 6}, true));
  expect_refused("must have shape",
                 [&](Training& t) { load(*t.optimizer, saved(other_shape)); });
  expect_refused("rule must be pion",
                 [&](Training& t) { load(*t.optimizer, saved(other_rule)); });
}

TEST(Checkpoint, RefusesNamedParametersInAnotherOrderAndNegativeSteps) {
  auto p = torch::randn({4, 4}).requires_grad_(),
       q = torch::randn({4, 4}).requires_grad_();
  Muon first({p, q}, MuonOptions(0.1)), same({p, q}, MuonOptions(0.1)),
      turned({q, p}, MuonOptions(0.1));
  for (auto* optimizer : {&first, &same, &turned})
    optimizer->set_names({{"p", p}, {"q", q}});
  p.mutable_grad() = torch::randn({4, 4}), q.mutable_grad() = torch::randn({4, 4});
  first.step();
  load(same, saved(first));
  EXPECT_THROW(load(turned, saved(first)), c10::Error);
  EXPECT_TRUE(turned.state().empty());
  auto tensors = same.state_tensors();
  tensors.at("p.step") = torch::full({}, -4, torch::kLong);
  EXPECT_THROW(same.load_state_tensors(tensors), c10::Error);
}

TEST(Checkpoint, RefusesStateTensorsThatDoNotFit) {
  const auto with = [](auto change) {
    return [change](Training& t) {
      auto tensors = t.optimizer->state_tensors();
      for (auto& [name, tensor] : tensors)
        tensor = tensor.clone() + 1;  // would show if written
      change(tensors);
      t.optimizer->load_state_tensors(tensors);
    };
  };
  using Tensors = std::map<std::string, torch::Tensor>;
  const std::string momentum = "groups.3.params.0.momentum_buffer";
  expect_refused("shape", with([&](Tensors& t) { t[momentum] = torch::zeros({3, 3}); }));
  expect_refused("type",
                 with([&](Tensors& t) { t[momentum] = t[momentum].to(torch::kDouble); }));
  expect_refused("got none", with([&](Tensors& t) { t.erase(momentum); }));
  expect_refused("got none", with([&](Tensors& t) { t.erase("optimizer.seed"); }));
  expect_refused("belong to a parameter", with([&](Tensors& t) {
                   t["other.momentum_buffer"] = torch::zeros({2});
                 }));
  expect_refused("names that pion writes", with([&](Tensors& t) {
                   t["groups.3.params.0.extra"] = torch::zeros({2});
                 }));
}

}  // namespace
}  // namespace pion
