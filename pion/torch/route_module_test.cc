// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/route_module.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <set>

#include "pion/torch/one_rule.h"
#include "pion/torch/options.h"

namespace pion {
namespace {

struct AttentionImpl : torch::nn::Module {
  AttentionImpl() {
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
      register_module(name,
                      torch::nn::Linear(torch::nn::LinearOptions(16, 16).bias(false)));
    }
  }
};
TORCH_MODULE(Attention);

struct GainImpl : torch::nn::Module {
  GainImpl() { register_parameter("gain", torch::ones({16})); }
};
TORCH_MODULE(Gain);

// A language model's parts; the head shares the embedding's memory if `tied`.
struct Model : torch::nn::Module {
  torch::nn::Embedding embed =
      register_module("embed_tokens", torch::nn::Embedding(20, 16));
  Attention attention = register_module("attention", Attention());
  torch::nn::Linear up = register_module("up_proj", torch::nn::Linear(16, 32));
  torch::nn::Conv2d conv = register_module("conv", torch::nn::Conv2d(4, 8, 3));
  torch::nn::LayerNorm norm =
      register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({16})));
  Gain gain = register_module("gain", Gain());
  torch::nn::Linear head = register_module(
      "lm_head", torch::nn::Linear(torch::nn::LinearOptions(16, 20).bias(false)));

  explicit Model(bool tied = false) {
    if (tied) head->weight.set_data(embed->weight.detach());
  }
};

ParameterDescription find(const std::vector<ParameterDescription>& all,
                          const std::string& name) {
  for (const ParameterDescription& one : all) {
    if (one.name == name) return one;
  }
  ADD_FAILURE() << "no parameter " << name;
  return {};
}

TEST(Describe, NamesShapesTypesAndTies) {
  const auto all = describe(Model(/*tied=*/true));
  EXPECT_EQ(all.size(), 13u);
  EXPECT_EQ(find(all, "embed_tokens.weight").module_type, "Embedding");
  EXPECT_EQ(find(all, "attention.q_proj.weight").module_type, "Linear");
  EXPECT_EQ(find(all, "conv.weight").module_type, "Conv2d");
  EXPECT_EQ(find(all, "conv.weight").shape, (std::vector<std::int64_t>{8, 4, 3, 3}));
  EXPECT_EQ(find(all, "norm.bias").module_type, "LayerNorm");
  EXPECT_EQ(find(all, "gain.gain").module_type, "Gain");
  EXPECT_EQ(find(all, "lm_head.weight").tied_to, "embed_tokens.weight");
  EXPECT_EQ(find(all, "up_proj.weight").tied_to, "");
  EXPECT_EQ(find(all, "up_proj.weight").dtype, "f32");
  EXPECT_EQ(find(describe(Model()), "lm_head.weight").tied_to, "");
}

TEST(Describe, PartsOfOneFlatBufferAreNotTied) {
  torch::nn::Linear a(4, 4), b(4, 4);
  const torch::Tensor flat = torch::randn({2, 4, 4});
  a->weight.set_data(flat[0]);
  b->weight.set_data(flat[1]);
  const torch::nn::Sequential both(a, b);
  for (const ParameterDescription& one : describe(*both)) EXPECT_EQ(one.tied_to, "");
}

TEST(MakeOptimizer, TakesAModelAndOptionsInOneCall) {
  Model model;
  const auto optimizer =
      make_optimizer(model, {.matrices = MuonOptions(0.02).rule(),
                             .rest = AdamWOptions(3e-4).weight_decay(0.5).rule(),
                             .overrides = {{"gain.gain", "rest"}},
                             .decay_vectors = false,
                             .lr_by_role = {{"embedding", 1e-3}}});
  std::map<std::string, torch::Tensor> before;
  for (const auto& p : model.named_parameters())
    before.emplace(p.key(), p.value().detach().clone());
  for (auto& p : model.parameters()) p.mutable_grad() = torch::zeros_like(p);
  optimizer->step();
  // of zero gradients only the decay is left: W <- (1 - lr 0.5) W
  for (const auto& p : model.named_parameters()) {
    double factor = 1;
    if (p.key() == "embed_tokens.weight") factor = 1 - 1e-3 * 0.5;
    if (p.key() == "lm_head.weight") factor = 1 - 3e-4 * 0.5;
    EXPECT_TRUE(torch::allclose(p.value(), factor * before.at(p.key()), 1e-6, 0))
        << p.key();
    EXPECT_TRUE(factor == 1 || !torch::equal(p.value(), before.at(p.key()))) << p.key();
  }
  std::size_t held = 0;
  for (const auto& group : optimizer->param_groups()) held += group.params().size();
  EXPECT_EQ(held, 13u);
}

TEST(MakeOptimizer, GroupsByRuleAndHeadsAndStepsTiedParametersOnce) {
  Model model(/*tied=*/true);
  RoutingOptions options;
  options.attention = {.heads = 4, .kv_heads = 4, .head_dim = 4};
  options.overrides = {{"gain.gain", "rest"}};
  const Routing routing = route(model, options);
  const auto optimizer = make_optimizer(model, routing);
  optimizer->collect_statistics(true);

  std::size_t held = 0;
  for (const auto& group : optimizer->param_groups()) held += group.params().size();
  EXPECT_EQ(held, 12u);
  const auto layout_of = [&](const torch::Tensor& wanted) -> HeadLayout {
    for (const auto& group : optimizer->param_groups()) {
      for (const auto& p : group.params()) {
        if (p.is_same(wanted))
          return static_cast<const GroupOptions&>(group.options()).layout();
      }
    }
    ADD_FAILURE() << "not held";
    return {};
  };
  const auto weight = [&](const char* name) {
    return model.attention->named_parameters()[std::string(name) + ".weight"];
  };
  EXPECT_EQ(layout_of(weight("q_proj")).heads, std::vector<std::int64_t>{4});
  EXPECT_EQ(layout_of(weight("o_proj")).axis, 1);
  EXPECT_EQ(layout_of(model.up->weight).heads, std::vector<std::int64_t>{1});

  for (auto& p : model.parameters()) p.mutable_grad() = torch::ones_like(p);
  optimizer->step();
  ASSERT_EQ(optimizer->statistics().size(), 12u);
  std::set<std::string> names;
  for (const auto& one : optimizer->statistics()) names.insert(one.name);
  EXPECT_EQ(names.count("embed_tokens.weight"), 1u);
  EXPECT_EQ(names.count("conv.weight"), 1u);
}

struct ExpertsImpl : torch::nn::Module {
  torch::Tensor down = register_parameter("down_proj", torch::randn({4, 8, 6}));
};
TORCH_MODULE(Experts);

TEST(MakeOptimizer, StepsEveryExpertOfAStackAsOneMatrix) {
  struct Mixture : torch::nn::Module {
    Experts experts = register_module("experts", Experts());
  } model;
  const Routing routing = route(model);
  ASSERT_EQ(routing.routes[0].role, Role::kExpertStack);
  const auto optimizer = make_optimizer(model, routing);
  torch::Tensor stack = model.experts->down;
  torch::Tensor alone = stack.detach()[2].clone().requires_grad_();
  Pion single({alone}, PionOptions(std::get<PionRule>(routing.routes[0].rule).lr));
  stack.mutable_grad() = torch::randn_like(stack);
  alone.mutable_grad() = stack.grad()[2].clone();
  optimizer->step(), single.step();
  EXPECT_TRUE(stack.detach()[2].equal(alone));
}

// GPT-OSS and Llama 4: (experts, in, out).
struct ExpertsInOutImpl : torch::nn::Module {
  torch::Tensor up = register_parameter("gate_up_proj", torch::randn({4, 8, 12}));
  torch::Tensor down = register_parameter("down_proj", torch::randn({4, 6, 8}));
};
TORCH_MODULE(ExpertsInOut);

TEST(MakeOptimizer, StepsExpertsStoredInOutAsTheirTransposes) {
  struct Mixture : torch::nn::Module {
    ExpertsInOut experts = register_module("experts", ExpertsInOut());
  } model;
  RoutingOptions options;
  MuonRule muon;
  muon.scale = Scale::kSpectral;
  muon.precision = Precision::kF32;
  options.matrices = muon;
  const auto optimizer =
      make_optimizer(model, Routing::from_toml(route(model, options).to_toml()));
  torch::Tensor stack = model.experts->up;
  torch::Tensor alone = stack.detach()[2].t().clone().requires_grad_();
  Muon single({alone},
              MuonOptions(muon.lr).scale(Scale::kSpectral).precision(Precision::kF32));
  const torch::Tensor before = stack.detach()[2].clone();
  stack.mutable_grad() = torch::randn_like(stack);
  alone.mutable_grad() = stack.grad()[2].t().clone();
  optimizer->step(), single.step();
  const torch::Tensor moved = stack.detach()[2] - before,
                      wanted = alone.detach().t() - before;
  // a scale of the wrong orientation is sqrt(8 / 12) of it where this is sqrt(12 / 8);
  // sums of 8 products of f32 in another order, through Muon's slope at 0, 3.4^5
  EXPECT_LT((moved - wanted).abs().max().item<float>(),
            8 * 5 * 480 * 0x1p-24 * wanted.abs().max().item<float>());
}

TEST(MakeOptimizer, StepsWhatIsUnfrozenLater) {
  Model model;
  model.up->weight.set_requires_grad(false);
  RoutingOptions options;
  options.overrides = {{"gain.gain", "rest"}};
  const Routing routing = route(model, options);
  EXPECT_NE(routing.table().find("frozen: 1 parameters, 512 numbers"), std::string::npos);
  const auto optimizer = make_optimizer(model, routing);
  const torch::Tensor before = model.up->weight.detach().clone();
  optimizer->step();
  EXPECT_TRUE(model.up->weight.equal(before));
  model.up->weight.set_requires_grad(true);
  model.up->weight.mutable_grad() = torch::ones_like(model.up->weight);
  optimizer->step();
  EXPECT_FALSE(model.up->weight.detach().equal(before));
}

TEST(Route, AsksWhichLayersEndTheModel) {
  struct Vae : torch::nn::Module {
    torch::nn::Linear fc1 = register_module("fc1", torch::nn::Linear(784, 400));
    torch::nn::Linear fc21 = register_module("fc21", torch::nn::Linear(400, 20));
    torch::nn::Linear fc22 = register_module("fc22", torch::nn::Linear(400, 20));
    torch::nn::Linear fc3 = register_module("fc3", torch::nn::Linear(20, 400));
    torch::nn::Linear fc4 = register_module("fc4", torch::nn::Linear(400, 784));
  } model;
  try {
    route(model);
    ADD_FAILURE() << "the second output was taken for a hidden matrix";
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    for (const char* name : {"fc21.weight  [", "fc22.weight  [", "fc4.weight  ["}) {
      EXPECT_NE(message.find(name), std::string::npos) << message;
    }
    EXPECT_EQ(message.find("fc3.weight"), std::string::npos) << message;
  }
}

TEST(MakeOptimizer, RefusesARoutingOfAnotherModel) {
  Model model;
  RoutingOptions options;
  options.overrides = {{"gain.gain", "rest"}};
  Routing routing = route(model, options);
  routing.routes.pop_back();
  EXPECT_THROW(make_optimizer(model, routing), c10::Error);
}

}  // namespace
}  // namespace pion
