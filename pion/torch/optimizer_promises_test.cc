// SPDX-License-Identifier: Apache-2.0
// What the LibTorch classes promise: nothing is written by a step that throws, no
// parameter twice, warnings that are heard, torch's own forms of options.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <type_traits>
#include <utility>

#include "pion/torch/one_rule.h"

namespace pion {
namespace {

using Group = torch::optim::OptimizerParamGroup;

torch::Tensor drawn(at::IntArrayRef shape, std::uint64_t seed) {
  torch::manual_seed(seed);
  return torch::randn(shape).requires_grad_();
}

template <class Work>
std::string complaint_of(Work work) {
  try {
    work();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "nothing was thrown";
}

bool says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// LibTorch's warnings while it lives.
class HeardWarnings : public c10::WarningHandler {
 public:
  HeardWarnings() : before_(c10::WarningUtils::get_warning_handler()) {
    c10::WarningUtils::set_warning_handler(this);
  }
  ~HeardWarnings() override { c10::WarningUtils::set_warning_handler(before_); }
  void process(const c10::Warning& warning) override { all.push_back(warning.msg()); }
  std::vector<std::string> all;

 private:
  c10::WarningHandler* before_;
};

TEST(Memory, OfTwoParametersIsApart) {
  auto w = drawn({4, 4}, 1);
  EXPECT_TRUE(says(complaint_of([&] { Muon({w, w}, 0.1); }), "groups.0.params.1"));
  // another tensor on the same memory, whole, transposed or in part
  auto storage = torch::randn({20});
  const auto view = [&](std::int64_t first, at::IntArrayRef shape) {
    return storage.narrow(0, first, c10::multiply_integers(shape)).view(shape);
  };
  for (const torch::Tensor& tied :
       {view(0, {4, 4}), view(0, {4, 4}).t(), view(3, {4, 4}), view(15, {1, 1})}) {
    const std::string message = complaint_of([&] { Muon({view(0, {4, 4}), tied}, 0.1); });
    EXPECT_TRUE(says(message, "memory of its own, got groups.0.params.1")) << message;
  }
  Muon two({view(0, {4, 4})}, 0.1);
  EXPECT_TRUE(says(complaint_of([&] { two.add_param_group(Group({view(1, {2, 2})})); }),
                   "groups.1.params.0 in that of groups.0.params.0"));
  Muon apart({view(0, {4, 4}), view(16, {2, 2})}, 0.1);  // of one flat buffer
  auto both = torch::randn({4, 6});
  Muon columns({both.narrow(1, 0, 3), both.narrow(1, 3, 3)}, 0.1);
}

TEST(Parameters, WithoutEntriesAreTaken) {
  auto none = torch::randn({0, 4}).requires_grad_(), w = drawn({4, 4}, 1);
  none.mutable_grad() = torch::zeros({0, 4}), w.mutable_grad() = torch::ones({4, 4});
  for (const bool generic : {false, true}) {
    Muon muon({none, w}, MuonOptions(0.1).heads(2));
    muon.force_device_generic(generic);
    AdamW adamw({none}, 0.1);
    adamw.force_device_generic(generic);
    EXPECT_NO_THROW((muon.step(), adamw.step()));
  }
}

// The momentum of the second was spoiled by a checkpoint; the first stands before it.
TEST(Refusals, OfAMomentumComeBeforeAnythingIsWritten) {
  for (const bool generic : {false, true}) {
    for (const NonFinite policy : {NonFinite::kRaise, NonFinite::kZero}) {
      auto a = drawn({4, 4}, 1), b = drawn({4, 4}, 2), c = drawn({4}, 3);
      for (auto* each : {&a, &b, &c}) each->mutable_grad() = torch::ones_like(*each);
      const auto make = [&] {
        auto optimizer = std::make_unique<Optimizer>(std::vector<Group>{
            {{a, b}, std::make_unique<MuonOptions>(MuonOptions(0.1).nonfinite(policy))},
            {{c}, std::make_unique<AdamWOptions>(0.1)}});
        optimizer->force_device_generic(generic);
        return optimizer;
      };
      auto saved = make();
      saved->step();
      auto state = saved->state_tensors();
      for (auto& [name, tensor] : state) tensor = tensor.clone();
      state.at("groups.0.params.1.momentum_buffer")[0][0] = NAN;
      auto loaded = make();
      loaded->load_state_tensors(state);
      const auto before = std::vector{a.detach().clone(), c.detach().clone()};
      const std::string message = complaint_of([&] { loaded->step(); });
      EXPECT_TRUE(says(message, "groups.0.params.1; nothing was written")) << message;
      EXPECT_TRUE(a.equal(before[0]) && c.equal(before[1])) << "generic " << generic;
      const std::string step = "groups.0.params.0.step";
      EXPECT_TRUE(loaded->state_tensors().at(step).equal(state.at(step)));
    }
  }
}

TEST(Warnings, AreLibTorchsUntilSomebodyTakesThem) {
  HeardWarnings heard;
  auto w = drawn({4, 4}, 1);
  w.mutable_grad() = torch::full({4, 4}, NAN);
  Muon loud({w}, 0.1);
  for (int step = 0; step < 100; ++step) loud.step();
  ASSERT_EQ(heard.all.size(), 1u);
  EXPECT_TRUE(says(heard.all[0], "holds NaN or Inf")) << heard.all[0];
  EXPECT_EQ(loud.take_warnings(), heard.all);

  std::vector<std::string> own;
  Muon sunk({w}, 0.1);
  sunk.set_warning_sink([&](const std::string& message) { own.push_back(message); });
  sunk.step();
  EXPECT_EQ(own.size(), 1u);
  EXPECT_EQ(heard.all.size(), 1u);
  EXPECT_TRUE(sunk.take_warnings().empty());
}

// The ATen path does not wait for its steps: each is read of in the next.
TEST(Warnings, TellOfSkippedStepsOnOtherDevices) {
  HeardWarnings heard;
  auto good = drawn({4, 4}, 1), bad = drawn({4, 4}, 2);
  Muon optimizer({good, bad}, 0.1);
  optimizer.force_device_generic(true);
  optimizer.set_names({{"good", good}, {"bad", bad}});
  for (int step = 0; step < 100; ++step) {
    good.mutable_grad() = torch::ones({4, 4});
    bad.mutable_grad() = torch::full({4, 4}, step % 2 ? 1.0 : NAN);
    optimizer.step();
  }
  ASSERT_EQ(heard.all.size(), 1u);
  EXPECT_TRUE(says(heard.all[0], "1 of the last 1 steps left out bad")) << heard.all[0];
}

TEST(Warnings, NoneOfAGradientOfRankOne) {
  HeardWarnings heard;
  auto w = drawn({8, 6}, 1), column = drawn({6, 1}, 2);
  Muon optimizer({w, column}, 0.1);
  for (int step = 0; step < 30; ++step) {
    w.mutable_grad() = torch::outer(torch::ones(8), torch::ones(6));
    column.mutable_grad() = torch::ones({6, 1});
    optimizer.step();
  }
  EXPECT_TRUE(heard.all.empty()) << heard.all.front();
}

// Experts that no token reached, against parameters of their own without a gradient.
TEST(Stacks, AMatrixWithoutGradientIsLeftAlone) {
  for (const bool generic : {false, true}) {
    auto stack = drawn({3, 8, 6}, 1);
    std::vector<torch::Tensor> experts;
    for (int k = 0; k < 3; ++k) {
      experts.push_back(stack.detach()[k].clone().requires_grad_());
    }
    const auto options = MuonOptions(0.1).weight_decay(0.5).precision(Precision::kF32);
    auto stacked = options;
    stacked.fold(Fold::kStack);
    Muon together({stack}, stacked), apart(experts, options);
    together.force_device_generic(generic), apart.force_device_generic(generic);
    together.collect_statistics(true);
    for (int step = 0; step < 3; ++step) {
      torch::manual_seed(20 + step);
      stack.mutable_grad() = torch::randn({3, 8, 6});
      if (step > 0) stack.mutable_grad()[1].zero_();
      for (int k = 0; k < 3; ++k) {
        experts[k].mutable_grad() = stack.grad()[k].clone();
        if (step > 0 && k == 1) experts[k].mutable_grad() = torch::Tensor();
      }
      together.step(), apart.step();
    }
    for (int k = 0; k < 3; ++k) {
      // products of other batches: roundings of O's entries, below 1, at lr 0.1
      EXPECT_TRUE(stack[k].allclose(experts[k], 0, 1e-5)) << k << " " << generic;
    }
    const ParameterStatistics& what = together.statistics().at(0);
    EXPECT_EQ(what.update.idle, 1);
    EXPECT_EQ(what.update.directions, 12);
    ASSERT_EQ(what.matrices.size(), 3u);
    for (std::size_t k = 0; k < 3; ++k) {
      EXPECT_EQ(what.matrices[k].idle, k == 1);
      EXPECT_EQ(what.matrices[k].directions, k == 1 ? 0 : 6);
      EXPECT_NEAR(what.matrices[k].gradient_norm,
                  stack.grad()[static_cast<int>(k)].norm().item<double>(), 1e-4);
    }
  }
}

// torch.optim.AdamW's default: the weight alone decays under a zero gradient.
TEST(AdamWOptions, HaveTorchsDefaults) {
  const torch::optim::AdamWOptions theirs;
  const AdamWOptions ours;
  EXPECT_EQ(ours.weight_decay(), theirs.weight_decay());
  EXPECT_EQ(ours.lr(), theirs.lr());
  EXPECT_EQ(ours.betas(), theirs.betas());
  EXPECT_EQ(ours.eps(), theirs.eps());
  auto a = drawn({5}, 1), b = a.detach().clone().requires_grad_();
  AdamW mine({a}, 1e-2);
  torch::optim::AdamW judge({b}, 1e-2);
  for (int step = 0; step < 5; ++step) {
    torch::manual_seed(10 + step);
    a.mutable_grad() = b.mutable_grad() = torch::randn({5});
    mine.step(), judge.step();
  }
  // five steps, a few roundings of entries of size 1 each
  EXPECT_TRUE(a.allclose(b, 0, 20 * 0x1p-24)) << a - b;
}

// Groups inherit torch's default unless they set their own, and a rule by name has none.
TEST(AdamWOptions, WeightDecayIsSetOrInherited) {
  auto a = drawn({5}, 1), b = drawn({5}, 2);
  AdamW optimizer(
      std::vector<Group>{
          Group({a}),
          {{b}, std::make_unique<AdamWOptions>(AdamWOptions(1e-3).weight_decay(0))}},
      1e-2);
  const auto decay = [&](int g) {
    return static_cast<const AdamWOptions&>(optimizer.param_groups()[g].options())
        .weight_decay();
  };
  EXPECT_EQ(decay(0), 0.01);
  EXPECT_EQ(decay(1), 0.0);
  EXPECT_EQ(static_cast<AdamWOptions&>(*make_options(AdamWRule{})).weight_decay(), 0.0);
}

TEST(Options, ChainThroughEverySetter) {
  const auto options = PionOptions(1e-3)
                           .set("momentum", 0.9)
                           .set_layout({.heads = {2}})
                           .set_fold(Fold::kStack)
                           .cutoff("auto")
                           .steps(6);
  static_assert(std::is_same_v<decltype(options), const PionOptions>);
  EXPECT_EQ(options.momentum(), 0.9);
  EXPECT_EQ(options.layout().heads, std::vector<std::int64_t>{2});
  EXPECT_EQ(options.fold(), Fold::kStack);
  EXPECT_EQ(options.steps(), 6);
}

TEST(Optimizers, MoveWithTheirState) {
  auto a = drawn({4, 4}, 1), b = a.detach().clone().requires_grad_();
  a.mutable_grad() = torch::ones({4, 4}), b.mutable_grad() = a.grad();
  Muon stays({b}, 0.1);
  const auto made = [](torch::Tensor w) {
    Muon local({std::move(w)}, 0.1);
    local.step();
    return local;
  };
  std::vector<Muon> held;
  held.push_back(made(a));
  Muon other({drawn({2, 2}, 3)}, 0.5);
  other = std::move(held.front());
  other.step();
  stays.step(), stays.step();
  EXPECT_TRUE(a.equal(b));
}

}  // namespace
}  // namespace pion
