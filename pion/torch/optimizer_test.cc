// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "pion/torch/one_rule.h"

namespace pion {
namespace {

using Group = torch::optim::OptimizerParamGroup;

torch::Tensor parameter(at::IntArrayRef shape, std::uint64_t seed = 1,
                        at::ScalarType type = torch::kFloat) {
  torch::manual_seed(seed);
  return torch::randn(shape).to(type).requires_grad_();
}

void set_gradient(torch::Tensor& parameter, std::uint64_t seed) {
  torch::manual_seed(seed);
  parameter.mutable_grad() = torch::randn(parameter.sizes()).to(parameter.dtype());
}

template <class Options>
Group group(std::vector<torch::Tensor> parameters, const Options& options) {
  return {std::move(parameters), std::make_unique<Options>(options)};
}

template <class Work>
std::string message_of(Work work) {
  try {
    work();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "nothing was thrown";
}

TEST(Groups, KeepWhatTheySetAndInheritTheRest) {
  auto a = parameter({4, 4}), b = parameter({4, 4}), c = parameter({4, 4});
  const auto defaults = PionOptions(0.1).weight_decay(0.2).steps(7).heads(2);
  Pion optimizer(
      std::vector<Group>{group({a}, PionOptions().weight_decay(0.3)), Group({b})},
      defaults);
  optimizer.add_param_group(group({c}, PionOptions(0.5).steps(9)));
  const auto at = [&](int g) -> const PionOptions& {
    return static_cast<const PionOptions&>(optimizer.param_groups()[g].options());
  };
  EXPECT_EQ(at(0).weight_decay(), 0.3);
  EXPECT_EQ(at(0).lr(), 0.1);
  EXPECT_EQ(at(0).steps(), 7);
  EXPECT_EQ(at(0).layout().heads, std::vector<std::int64_t>{2});
  EXPECT_TRUE(at(1) == defaults);
  EXPECT_EQ(at(2).weight_decay(), 0.2);
  EXPECT_EQ(at(2).lr(), 0.5);
  EXPECT_EQ(at(2).steps(), 9);
}

TEST(Groups, AnOwnCutoffEndsTheDefaultsPromotionSteps) {
  auto a = parameter({4, 4});
  Pion optimizer(std::vector<Group>{group({a}, PionOptions().cutoff(0.3))},
                 PionOptions(0.1).promotion_steps(2));
  const auto& options =
      static_cast<const PionOptions&>(optimizer.param_groups()[0].options());
  EXPECT_FALSE(options.promotion_steps().has_value());
  EXPECT_EQ(options.cutoff().value, 0.3);
}

// LibTorch's own add_param_group drops the options of classes that it does not know
// (pytorch#161825): through a base reference the group would train with weight decay 0.
TEST(Groups, OneAddedThroughTheBaseClassIsRefusedWithARemedy) {
  auto a = parameter({4, 4}), b = parameter({4, 4}, 2);
  Muon optimizer({a}, MuonOptions(0.1));
  torch::optim::Optimizer& base = optimizer;
  base.add_param_group(group({b}, MuonOptions().weight_decay(0.3)));
  EXPECT_EQ(
      static_cast<const MuonOptions&>(base.param_groups()[1].options()).weight_decay(),
      0.0)
      << "LibTorch keeps the options now: the detour in add_param_group can go";
  set_gradient(a, 3);
  const torch::Tensor before = a.detach().clone();
  const std::string message = message_of([&] { optimizer.step(); });
  EXPECT_NE(message.find("group 1"), std::string::npos) << message;
  EXPECT_NE(message.find("dynamic_cast<pion::Optimizer&>"), std::string::npos) << message;
  EXPECT_TRUE(a.equal(before));

  base.param_groups().pop_back();
  dynamic_cast<Optimizer&>(base).add_param_group(
      group({b}, MuonOptions().weight_decay(0.3)));
  optimizer.step();
  EXPECT_EQ(
      static_cast<const MuonOptions&>(base.param_groups()[1].options()).weight_decay(),
      0.3);
}

TEST(Groups, MayMixRules) {
  auto w = parameter({6, 4}), b = parameter({4}), e = parameter({5, 2});
  Optimizer optimizer({group({w}, PionOptions(0.1).cutoff(0.3)),
                       group({b}, AdamWOptions(0.1)), group({e}, SgdOptions(0.1))});
  optimizer.collect_statistics(true);
  for (auto* p : {&w, &b, &e}) set_gradient(*p, 5);
  optimizer.step();
  ASSERT_EQ(optimizer.statistics().size(), 3u);
  EXPECT_EQ(rule_name(optimizer.statistics()[0].rule), "pion");
  EXPECT_EQ(optimizer.statistics()[0].update.directions, 4);
  EXPECT_EQ(rule_name(optimizer.statistics()[1].rule), "adamw");
  EXPECT_EQ(optimizer.statistics()[2].name, "groups.2.params.0");
}

TEST(BadInput, IsRefusedInWords) {
  auto w = parameter({6, 4}), b = parameter({4});
  const auto muon = [](auto p, const MuonOptions& o) { Muon optimizer({p}, o); };
  const auto expect = [](const std::string& message, const char* part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(message_of([&] { muon(b, MuonOptions(0.1)); }),
         "groups.0.params.0 of shape [4]");
  expect(message_of([&] { muon(w, MuonOptions(-1)); }), "lr");
  expect(message_of([&] { muon(w, MuonOptions(0.1).heads(4)); }), "4");
  expect(message_of([&] { muon(w, MuonOptions(0.1).coefficients("x")); }), "classic");
  expect(message_of([&] { muon(parameter({2, 2}, 1, torch::kHalf), MuonOptions(0.1)); }),
         "Half");
  expect(message_of([&] { Muon optimizer({w, w}, MuonOptions(0.1)); }), "one group only");
  expect(message_of([&] { Optimizer optimizer({Group({w})}); }), "must have options");
  expect(message_of([&] { PionOptions().set("learning_rate", 0.1); }), "lr");
  expect(message_of(
             [&] { Optimizer optimizer({group({w}, torch::optim::AdamWOptions(0.1))}); }),
         "pion's classes");
  AdamW optimizer({b}, AdamWOptions(0.1));
  b.mutable_grad() = torch::ones({4}).to_sparse();
  expect(message_of([&] { optimizer.step(); }), "dense");
}

TEST(BadInput, AParameterChangedAfterItsFirstStepIsRefused) {
  const auto refused = [](const auto& change, auto make, const char* part) {
    auto w = parameter({6, 4});
    auto optimizer = make(w);
    set_gradient(w, 1);
    optimizer->step();
    change(w);
    const auto before = w.detach().clone();
    const std::string message = message_of([&] { optimizer->step(); });
    EXPECT_NE(message.find("groups.0.params.0"), std::string::npos) << message;
    EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_TRUE(w.equal(before));
  };
  const auto muon = [](auto w) {
    return std::make_unique<Muon>(std::vector{w}, MuonOptions(0.1));
  };
  const auto adamw = [](auto w) {
    return std::make_unique<AdamW>(std::vector{w}, AdamWOptions(0.1));
  };
  const auto replace = [](const torch::Tensor& by) {
    return [by](torch::Tensor& w) {
      w.set_data(by);
      w.mutable_grad() = torch::ones_like(by);
    };
  };
  const auto gradient = [](const torch::Tensor& by) {
    return [by](torch::Tensor& w) { w.mutable_grad() = by; };
  };
  refused(replace(torch::randn({6, 4}, torch::kDouble)), muon, "after its first step");
  refused(replace(torch::randn({6, 4}, torch::kDouble)), adamw, "after its first step");
  refused(replace(torch::randn({60, 40})), adamw, "[60, 40]");
  refused(replace(torch::randn({3, 4})), muon, "[3, 4]");
  refused(replace(torch::randn({6, 4}, torch::kHalf)), adamw, "Half");
  refused(gradient(torch::ones({2})), adamw, "got [2]");
  refused(gradient(torch::ones({4, 6})), muon, "got [4, 6]");
  refused(gradient(torch::ones({6, 4}, torch::kComplexFloat)), muon, "real");
  refused(gradient(torch::empty({6, 4}, torch::kMeta)), muon, "device cpu");
}

TEST(Step, OneThatThrowsLeavesNoTrace) {
  auto good = parameter({6, 4}).detach().to(torch::kBFloat16).requires_grad_(),
       bad = parameter({6, 4});
  AdamW optimizer({good, bad}, AdamWOptions(0.1)
                                   .low_precision(LowPrecision::kStochastic)
                                   .nonfinite(NonFinite::kRaise));
  good.mutable_grad() = torch::ones({6, 4}, torch::kBFloat16);
  bad.mutable_grad() = torch::full({6, 4}, std::nan(""));
  EXPECT_THROW(optimizer.step(), c10::Error);
  EXPECT_TRUE(optimizer.state().empty());
  bad.mutable_grad() = torch::ones({6, 4});
  optimizer.step();
  bad.mutable_grad() = torch::full({6, 4}, std::nan(""));
  const auto counters =
      optimizer.state_tensors().at("groups.0.params.0.counters").clone();
  EXPECT_THROW(optimizer.step(), c10::Error);
  EXPECT_TRUE(optimizer.state_tensors().at("groups.0.params.0.counters").equal(counters));
  auto expanded = torch::randn({1, 4}).expand({6, 4}).detach().requires_grad_();
  EXPECT_THROW(AdamW({expanded}, AdamWOptions(0.1)), c10::Error);
}

TEST(Step, ReadsOptionsAfterTheClosure) {
  auto w = parameter({6, 4}), later = parameter({6, 4}, 2);
  Muon optimizer({w}, MuonOptions(0.1));
  const auto before = w.detach().clone(), old = later.detach().clone();
  optimizer.step([&] {
    optimizer.param_groups()[0].options().set_lr(0);
    optimizer.add_param_group(group({later}, MuonOptions(0.2)));
    set_gradient(w, 1);
    set_gradient(later, 2);
    return torch::zeros({});
  });
  EXPECT_TRUE(w.equal(before));
  EXPECT_FALSE(later.equal(old));
}

TEST(Step, IsSeenByAutograd) {
  auto w = parameter({4, 4});
  Muon optimizer({w}, MuonOptions(0.1));
  const auto y = torch::ones({4, 4}, torch::requires_grad()).mm(w).sum();
  y.backward({}, /*retain_graph=*/true);
  optimizer.step();
  EXPECT_NE(message_of([&] { y.backward(); }).find("inplace"), std::string::npos);
}

TEST(Names, CanBeGivenAnewAndEndWithTheirTensor) {
  auto p = parameter({4, 4}), q = parameter({4, 4}, 2);
  Muon optimizer({p, q}, MuonOptions(0.1));
  set_gradient(p, 1), set_gradient(q, 2);
  optimizer.step();
  optimizer.set_names({{"a", p}, {"a", q}});
  optimizer.set_names({{"x", p}, {"y", q}});
  EXPECT_EQ(optimizer.state_tensors().count("x.momentum_buffer"), 1u);
  for (int i = 0; i < 50; ++i) optimizer.set_names({{"gone", parameter({4, 4})}});
  auto other = parameter({4, 4}, 3);
  optimizer.add_param_group(group({other}, MuonOptions(0.1)));
  set_gradient(other, 3);
  optimizer.step();
  EXPECT_EQ(optimizer.state_tensors().count("groups.1.params.0.momentum_buffer"), 1u);
}

TEST(Step, LeavesGradientsAndParametersWithoutGradientAlone) {
  auto with = parameter({6, 4}), without = parameter({6, 4}, 2);
  Pion optimizer({with, without}, PionOptions(0.1).weight_decay(0.5).nesterov(true));
  set_gradient(with, 3);
  const auto gradient = with.grad().clone(), old = without.detach().clone();
  optimizer.step();
  EXPECT_TRUE(with.grad().equal(gradient));
  EXPECT_TRUE(without.equal(old));
}

TEST(Step, CallsTheClosureWithGradientsOnAndReturnsTheLoss) {
  auto w = parameter({3, 3});
  Muon optimizer({w}, MuonOptions(0.1));
  const torch::NoGradGuard off;
  const auto loss = optimizer.step([&] {
    optimizer.zero_grad();
    auto value = (w * w).sum();
    value.backward();
    return value;
  });
  EXPECT_GT(loss.item<float>(), 0);
  EXPECT_LT((w * w).sum().item<float>(), loss.item<float>());
}

TEST(Step, DoesNotDependOnTheMemoryLayout) {
  auto plain = parameter({6, 4});
  auto transposed = plain.detach().t().contiguous().t().requires_grad_();
  ASSERT_FALSE(transposed.is_contiguous());
  Muon a({plain}, MuonOptions(0.1)), b({transposed}, MuonOptions(0.1));
  for (int step = 0; step < 3; ++step) {
    set_gradient(plain, step);
    transposed.mutable_grad() = plain.grad().t().contiguous().t();
    a.step(), b.step();
  }
  EXPECT_TRUE(plain.equal(transposed));
}

TEST(Step, GivesTheSameForEveryThreadCount) {
  const auto run = [](int threads) {
    at::set_num_threads(threads);
    std::vector<torch::Tensor> all = {parameter({33, 20}), parameter({5, 8, 8}),
                                      parameter({64, 16}), parameter({20, 64})};
    Pion optimizer(all, PionOptions(0.1).cutoff(0.2).fold(Fold::kStack));
    for (int step = 0; step < 4; ++step) {
      for (auto& p : all) set_gradient(p, step);
      optimizer.step();
    }
    for (auto& p : all) p = p.detach().flatten();
    return torch::cat(all);
  };
  const auto one = run(1), two = run(2);
  EXPECT_TRUE(one.equal(two));
}

TEST(Schedulers, ReachEveryGroup) {
  auto a = parameter({4, 4}), b = parameter({4});
  Optimizer optimizer({group({a}, PionOptions(0.1)), group({b}, AdamWOptions(0.01))});
  torch::optim::StepLR decay(optimizer, /*step_size=*/1, /*gamma=*/0.5);
  optimizer.step();
  decay.step();  // LibTorch's first call keeps the rate
  EXPECT_DOUBLE_EQ(optimizer.param_groups()[0].options().get_lr(), 0.1);
  decay.step();
  EXPECT_DOUBLE_EQ(optimizer.param_groups()[0].options().get_lr(), 0.05);
  EXPECT_DOUBLE_EQ(optimizer.param_groups()[1].options().get_lr(), 0.005);
  torch::optim::ReduceLROnPlateauScheduler plateau(
      optimizer, torch::optim::ReduceLROnPlateauScheduler::min, 0.5f, /*patience=*/0);
  plateau.step(1.0f);
  plateau.step(1.0f);
  EXPECT_DOUBLE_EQ(optimizer.param_groups()[0].options().get_lr(), 0.025);
}

TEST(Schedulers, TheLrFactorMultipliesEveryRate) {
  auto a = parameter({4, 4}), b = parameter({4, 4});
  Muon half({a}, MuonOptions(0.1).weight_decay(0.5)),
      plain({b}, MuonOptions(0.05).weight_decay(0.5));
  half.set_lr_factor(0.5);
  set_gradient(a, 2), set_gradient(b, 2);
  half.step(), plain.step();
  EXPECT_TRUE(a.equal(b));
  EXPECT_THROW(half.set_lr_factor(-1), c10::Error);
}

TEST(NonFinite, IsSkippedWithOneWarningRaisedBeforeAnythingIsWrittenOrZeroed) {
  auto good = parameter({4, 4}), bad = parameter({4, 4}, 2);
  const auto run = [&](Muon& optimizer) {
    set_gradient(good, 3), set_gradient(bad, 3);
    bad.mutable_grad()[0][0] = NAN;
    optimizer.step();
  };
  Muon skip({good, bad}, MuonOptions(0.1).weight_decay(0.1));
  auto old = bad.detach().clone();
  run(skip), run(skip);
  EXPECT_TRUE(bad.equal(old));
  const auto warnings = skip.take_warnings();
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("groups.0.params.1"), std::string::npos);

  Muon raise({good, bad}, MuonOptions(0.1).nonfinite(NonFinite::kRaise));
  const auto old_good = good.detach().clone();
  EXPECT_NE(message_of([&] { run(raise); }).find("groups.0.params.1"), std::string::npos);
  EXPECT_TRUE(good.equal(old_good));

  Muon zero({good, bad}, MuonOptions(0.1).nonfinite(NonFinite::kZero));
  run(zero);
  EXPECT_FALSE(bad.equal(old));
  EXPECT_TRUE(at::isfinite(bad).all().item<bool>());
}

TEST(Warnings, NameAParameterWhoseUpdateStaysEmpty) {
  auto w = parameter({64, 64});
  Pion optimizer({w}, PionOptions(0.1).promotion_steps(0));
  optimizer.set_names({{"layers.3.weight", w}});
  std::vector<std::string> heard;
  optimizer.set_warning_sink(
      [&](const std::string& message) { heard.push_back(message); });
  for (int step = 0; step < 40; ++step) {
    set_gradient(w, step);
    optimizer.step();
  }
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_NE(heard[0].find("layers.3.weight"), std::string::npos);
}

}  // namespace
}  // namespace pion
