// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/keys_by_role.h"

#include <gtest/gtest.h>

#include "tests/thrown_message.h"

namespace pion {
namespace {

std::vector<ParameterDescription> model() {
  return {{"embed_tokens.weight", {100, 32}, "Embedding", "", "f32"},
          {"layers.0.mlp.up_proj.weight", {128, 32}, "Linear", "", "f32"},
          {"layers.0.mlp.up_proj.bias", {128}, "Linear", "", "f32"},
          {"layers.0.mlp.experts.w1", {4, 32, 16}, "Experts", "", "f32"},
          {"norm.weight", {32}, "LayerNorm", "", "f32"},
          {"lm_head.weight", {100, 32}, "Linear", "", "f32"}};
}

TEST(KeysByRole, GiveRolesTheirRatesAndSpareVectorsTheDecay) {
  RoutingOptions options;
  options.rest = AdamWRule{.lr = 1e-3, .weight_decay = 0.1};
  options.decay_vectors = false;
  options.lr_by_role = {{"embedding", 3e-4}, {"expert_stack", 5e-3}};
  const Routing routing = route(model(), options);
  for (const Route& r : routing.routes) {
    const double decay = std::get<double>(*get_rule_key(r.rule, "weight_decay"));
    const bool rest = !is_matrix_rule(r.rule),
               vector = r.role == Role::kNorm || r.role == Role::kBias;
    EXPECT_EQ(decay, rest && !vector ? 0.1 : 0.0) << r.parameter.name;
    EXPECT_EQ(r.reason.ends_with("; without decay"), vector) << r.reason;
    const double lr = r.role == Role::kEmbedding     ? 3e-4
                      : r.role == Role::kExpertStack ? 5e-3
                                                     : 1e-3;
    EXPECT_EQ(learning_rate(r.rule), lr) << r.parameter.name;
  }
  // a file holds every key of every rule
  EXPECT_EQ(Routing::from_toml(routing.to_toml()).table(), routing.table());
}

TEST(KeysByRole, RefuseRatesOfRolesThatNothingPlays) {
  const auto message = [](std::vector<std::pair<std::string, double>> rates) {
    RoutingOptions options;
    options.lr_by_role = std::move(rates);
    return message_of([&] { route(model(), options); });
  };
  expect_says(message({{"embeding", 1e-3}}), "did you mean \"embedding\"?");
  expect_says(message({{"router", 1e-3}}), "lr_by_role router must be the role of a");
  expect_says(message({{"router", 1e-3}}), " bias embedding expert_stack");
  expect_says(message({{"norm", 1e-3}, {"norm", 1e-4}}), "\"norm\" twice");
  expect_says(message({{"norm", -1.0}}), "lr_by_role norm: lr");
}

}  // namespace
}  // namespace pion
