// SPDX-License-Identifier: Apache-2.0
// The parameters of networks for images, robots and games, and what each of them is.
#include "pion/optim/routing_zoo.h"

namespace pion {
namespace {

TEST(RoutingZoo, ResNet) {
  expect_roles(
      "resnet",
      {{"conv1.weight", {64, 3, 7, 7}, "Conv2d", Role::kConvolution},
       {"bn1.weight", {64}, "BatchNorm2d", Role::kNorm},
       {"layer1.0.conv1.weight", {64, 64, 3, 3}, "Conv2d", Role::kConvolution},
       {"layer2.0.downsample.0.weight", {128, 64, 1, 1}, "Conv2d", Role::kConvolution},
       {"layer2.0.depthwise.weight", {128, 1, 3, 3}, "Conv2d", Role::kVector},
       {"fc.weight", {1000, 512}, "Linear", Role::kHead},
       {"fc.bias", {1000}, "Linear", Role::kBias}});
}

TEST(RoutingZoo, VisionTransformer) {
  expect_roles(
      "vit",
      {{"cls_token", {1, 1, 192}, "VisionTransformer", Role::kVector},
       {"pos_embed", {1, 197, 192}, "VisionTransformer", Role::kEmbedding},
       {"patch_embed.proj.weight", {192, 3, 16, 16}, "Conv2d", Role::kEmbedding},
       {"blocks.0.norm1.weight", {192}, "LayerNorm", Role::kNorm},
       {"blocks.0.attn.qkv.weight",
        {576, 192},
        "Linear",
        Role::kAttentionFusedQkv,
        {3, 3, 3}},
       {"blocks.0.attn.proj.weight", {192, 192}, "Linear", Role::kAttentionO, {3}, 1},
       {"blocks.0.ls1.gamma", {192}, "LayerScale", Role::kVector},
       {"blocks.0.ls2.gamma", {192, 1, 1}, "LayerScale", Role::kVector},
       {"blocks.0.mlp.fc1.weight", {768, 192}, "Linear", Role::kHiddenMatrix},
       {"blocks.0.mlp.fc2.weight", {192, 768}, "Linear", Role::kHiddenMatrix},
       {"head.weight", {1000, 192}, "Linear", Role::kHead}},
      with_heads(3, 3, 64));
}

TEST(RoutingZoo, VisionLanguageActionModel) {
  RoutingOptions options = with_heads(8, 1, 256);
  options.attention_by_name = {{"vision_tower.*", {2, 2, 72}}};
  expect_roles(
      "vla",
      {{"vision_tower.layers.0.self_attn.q_proj.weight",
        {144, 144},
        "Linear",
        Role::kAttentionQ,
        {2}},
       {"vision_tower.layers.0.self_attn.out_proj.weight",
        {144, 144},
        "Linear",
        Role::kAttentionO,
        {2},
        1},
       {"multi_modal_projector.linear.weight",
        {1024, 144},
        "Linear",
        Role::kHiddenMatrix},
       {"language_model.layers.0.self_attn.q_proj.weight",
        {2048, 1024},
        "Linear",
        Role::kAttentionQ,
        {8}},
       {"language_model.layers.0.self_attn.k_proj.weight",
        {256, 1024},
        "Linear",
        Role::kAttentionK,
        {1}},
       {"gemma_expert.layers.0.self_attn.o_proj.weight",
        {512, 2048},
        "Linear",
        Role::kAttentionO,
        {8},
        1},
       {"gemma_expert.layers.0.mlp.down_proj.weight",
        {512, 2048},
        "Linear",
        Role::kHiddenMatrix},
       {"action_head.blocks.0.mlp.fc1.weight", {256, 128}, "Linear", Role::kHiddenMatrix},
       {"action_head.0.weight", {128, 512}, "Linear", Role::kHiddenMatrix},
       {"action_head.2.weight", {7, 128}, "Linear", Role::kHead},
       {"state_proj.weight", {512, 32}, "Linear", Role::kEmbedding},
       {"action_in_proj.weight", {512, 7}, "Linear", Role::kEmbedding},
       {"action_out_proj.weight", {7, 512}, "Linear", Role::kHead},
       {"action_queries", {50, 512}, "Policy", Role::kEmbedding}},
      options);
}

TEST(RoutingZoo, RecurrentAndStateSpace) {
  expect_roles("lstm", {{"weight_ih_l0", {256, 32}, "LSTM", Role::kHiddenMatrix, {4}},
                        {"weight_hh_l0", {256, 64}, "LSTM", Role::kHiddenMatrix, {4}},
                        {"bias_ih_l0", {256}, "LSTM", Role::kBias}});
  expect_roles(
      "mamba",
      {{"layers.0.mixer.A_log", {128, 16}, "Mamba", Role::kVector},
       {"layers.0.mixer.conv1d.weight", {128, 1, 4}, "Conv1d", Role::kVector},
       {"layers.0.mixer.in_proj.weight", {256, 64}, "Linear", Role::kHiddenMatrix},
       {"layers.0.mixer.out_proj.weight", {64, 128}, "Linear", Role::kHiddenMatrix}});
}

TEST(RoutingZoo, PoliciesOfReinforcementLearning) {
  expect_roles("cleanrl ppo",
               {{"critic.0.weight", {64, 17}, "Linear", Role::kHiddenMatrix},
                {"critic.2.weight", {64, 64}, "Linear", Role::kHiddenMatrix},
                {"critic.4.weight", {1, 64}, "Linear", Role::kHead},
                {"actor_mean.0.weight", {64, 17}, "Linear", Role::kHiddenMatrix},
                {"actor_mean.2.weight", {64, 64}, "Linear", Role::kHiddenMatrix},
                {"actor_mean.4.weight", {6, 64}, "Linear", Role::kHead},
                {"actor_logstd", {1, 6}, "", Role::kVector}});
  expect_roles("atari ppo",
               {{"network.0.weight", {32, 4, 8, 8}, "Conv2d", Role::kConvolution},
                {"network.7.weight", {512, 3136}, "Linear", Role::kHiddenMatrix},
                {"actor.weight", {6, 512}, "Linear", Role::kHead},
                {"critic.weight", {1, 512}, "Linear", Role::kHead}});
  expect_roles(
      "snake transformer",
      {{"patch_projection.weight", {64, 12}, "Linear", Role::kEmbedding},
       {"position.weight", {37, 64}, "Embedding", Role::kEmbedding},
       {"layer0.attention.q_proj.weight", {64, 64}, "Linear", Role::kAttentionQ, {4}},
       {"layer0.attention.o_proj.weight", {64, 64}, "Linear", Role::kAttentionO, {4}, 1},
       {"layer0.up_proj.weight", {256, 64}, "Linear", Role::kHiddenMatrix},
       {"final_norm.weight", {64}, "LayerNorm", Role::kNorm},
       {"policy_head.weight", {4, 64}, "Linear", Role::kHead},
       {"value_head.weight", {1, 64}, "Linear", Role::kHead}},
      with_heads(4, 4, 16));
  expect_roles("plain mlp", {{"fc1.weight", {128, 784}, "Linear", Role::kHiddenMatrix},
                             {"fc2.weight", {64, 128}, "Linear", Role::kHiddenMatrix},
                             {"fc3.weight", {10, 64}, "Linear", Role::kHead}});
}

TEST(RoutingZoo, TiesDoNotDependOnOrder) {
  expect_roles("head first", {{"decoder.weight", {100, 16}, "", Role::kHead},
                              {"encoder.weight",
                               {100, 16},
                               "Embedding",
                               Role::kEmbedding,
                               {1},
                               0,
                               "decoder.weight"}});
  // a hidden name that shares its storage with an embedding is not orthogonalized
  expect_roles("embedding last",
               {{"layers.0.mlp.up_proj.weight", {100, 16}, "Linear", Role::kEmbedding},
                {"embed.weight",
                 {100, 16},
                 "Embedding",
                 Role::kEmbedding,
                 {1},
                 0,
                 "layers.0.mlp.up_proj.weight"}});
}

}  // namespace
}  // namespace pion
