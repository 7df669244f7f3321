// SPDX-License-Identifier: Apache-2.0
// The parameter lists of well-known models, each with the part that every parameter
// plays.
#include <gtest/gtest.h>

#include "pion/optim/routing.h"

namespace pion {
namespace {

struct Expected {
  const char* name;
  std::vector<std::int64_t> shape;
  const char* module;
  Role role;
  std::vector<std::int64_t> heads = {1};  // where the rule is one for matrices
  int axis = 0;
  const char* tied_to = "";
};

void expect_roles(const char* model, const std::vector<Expected>& table,
                  const RoutingOptions& options = {}) {
  SCOPED_TRACE(model);
  std::vector<ParameterDescription> parameters;
  for (const Expected& e : table)
    parameters.push_back({e.name, e.shape, e.module, e.tied_to, "f32"});
  const Routing routing = route(parameters, options);
  ASSERT_EQ(routing.routes.size(), table.size());
  for (std::size_t i = 0; i < table.size(); ++i) {
    const Route& r = routing.routes[i];
    EXPECT_EQ(role_name(r.role), role_name(table[i].role))
        << table[i].name << ": " << r.reason;
    EXPECT_EQ(is_matrix_rule(r.rule), is_matrix_role(table[i].role)) << table[i].name;
    EXPECT_FALSE(r.reason.empty()) << table[i].name;
    if (!is_matrix_rule(r.rule)) continue;
    EXPECT_EQ(r.heads.heads, table[i].heads) << table[i].name << ": " << r.reason;
    EXPECT_EQ(r.heads.axis, table[i].axis) << table[i].name;
  }
}

RoutingOptions with_heads(std::int64_t heads, std::int64_t kv_heads,
                          std::int64_t head_dim) {
  RoutingOptions options;
  options.attention = {heads, kv_heads, head_dim};
  return options;
}

TEST(RoutingZoo, Gpt2WithTransposedFusedProjections) {
  for (const char* type : {"Conv1D", ""}) {  // a file of weights knows no module types
    const std::vector<Expected> gpt2 = {
        {"transformer.wte.weight", {50257, 768}, "", Role::kEmbedding},
        {"transformer.wpe.weight", {1024, 768}, "", Role::kEmbedding},
        {"transformer.h.0.ln_1.weight", {768}, "", Role::kNorm},
        {"transformer.h.0.ln_1.bias", {768}, "", Role::kBias},
        {"transformer.h.0.attn.c_attn.weight",
         {768, 2304},
         type,
         Role::kAttentionFusedQkv,
         {12, 12, 12},
         1},
        {"transformer.h.0.attn.c_attn.bias", {2304}, type, Role::kBias},
        {"transformer.h.0.attn.c_proj.weight",
         {768, 768},
         type,
         Role::kAttentionO,
         {12},
         0},
        {"transformer.h.0.mlp.c_fc.weight", {768, 3072}, type, Role::kHiddenMatrix},
        {"transformer.h.0.mlp.c_proj.weight", {3072, 768}, type, Role::kHiddenMatrix},
        {"transformer.ln_f.weight", {768}, "", Role::kNorm},
        {"lm_head.weight",
         {50257, 768},
         "Linear",
         Role::kHead,
         {1},
         0,
         "transformer.wte.weight"}};
    expect_roles("gpt2", gpt2, with_heads(12, 12, 64));
  }
}

TEST(RoutingZoo, NanoGptWithLinearFusedProjection) {
  expect_roles(
      "nanogpt",
      {{"transformer.wte.weight", {50304, 384}, "Embedding", Role::kEmbedding},
       {"transformer.h.0.attn.c_attn.weight",
        {1152, 384},
        "Linear",
        Role::kAttentionFusedQkv,
        {6, 6, 6}},
       {"transformer.h.0.attn.c_proj.weight",
        {384, 384},
        "Linear",
        Role::kAttentionO,
        {6},
        1},
       {"transformer.h.0.mlp.c_fc.weight", {1536, 384}, "Linear", Role::kHiddenMatrix},
       {"transformer.h.0.mlp.c_proj.weight", {384, 1536}, "Linear", Role::kHiddenMatrix}},
      with_heads(6, 6, 0));
}

TEST(RoutingZoo, QwenWithGroupedQueries) {
  const std::vector<Expected> qwen = {
      {"model.embed_tokens.weight", {151936, 1024}, "Embedding", Role::kEmbedding},
      {"model.layers.0.self_attn.q_proj.weight",
       {2048, 1024},
       "Linear",
       Role::kAttentionQ,
       {16}},
      {"model.layers.0.self_attn.k_proj.weight",
       {1024, 1024},
       "Linear",
       Role::kAttentionK,
       {8}},
      {"model.layers.0.self_attn.v_proj.weight",
       {1024, 1024},
       "Linear",
       Role::kAttentionV,
       {8}},
      {"model.layers.0.self_attn.o_proj.weight",
       {1024, 2048},
       "Linear",
       Role::kAttentionO,
       {16},
       1},
      {"model.layers.0.self_attn.q_norm.weight", {128}, "Qwen3RMSNorm", Role::kNorm},
      {"model.layers.0.mlp.gate_proj.weight",
       {3072, 1024},
       "Linear",
       Role::kHiddenMatrix},
      {"model.layers.0.mlp.up_proj.weight", {3072, 1024}, "Linear", Role::kHiddenMatrix},
      {"model.layers.0.mlp.down_proj.weight",
       {1024, 3072},
       "Linear",
       Role::kHiddenMatrix},
      {"model.layers.0.input_layernorm.weight", {1024}, "Qwen3RMSNorm", Role::kNorm},
      {"model.norm.weight", {1024}, "Qwen3RMSNorm", Role::kNorm},
      {"lm_head.weight",
       {151936, 1024},
       "Linear",
       Role::kHead,
       {1},
       0,
       "model.embed_tokens.weight"}};
  expect_roles("qwen3", qwen, with_heads(16, 8, 128));
  // kv_heads left out: the query projection tells how wide a head is
  expect_roles("qwen3 without kv_heads", qwen, with_heads(16, 0, 0));
}

TEST(RoutingZoo, LlamaWithItsOwnNamesAndWithoutCounts) {
  const std::vector<Expected> llama = {
      {"tok_embeddings.weight", {32000, 512}, "", Role::kEmbedding},
      {"layers.0.attention.wq.weight", {512, 512}, "", Role::kAttentionQ},
      {"layers.0.attention.wk.weight", {256, 512}, "", Role::kAttentionK},
      {"layers.0.attention.wv.weight", {256, 512}, "", Role::kAttentionV},
      {"layers.0.attention.wo.weight", {512, 512}, "", Role::kAttentionO, {1}, 1},
      {"layers.0.feed_forward.w1.weight", {1376, 512}, "", Role::kHiddenMatrix},
      {"layers.0.feed_forward.w2.weight", {512, 1376}, "", Role::kHiddenMatrix},
      {"layers.0.feed_forward.w3.weight", {1376, 512}, "", Role::kHiddenMatrix},
      {"layers.0.attention_norm.weight", {512}, "", Role::kNorm},
      {"norm.weight", {512}, "", Role::kNorm},
      {"output.weight", {32000, 512}, "", Role::kHead}};
  expect_roles("llama", llama);
}

TEST(RoutingZoo, BertAndNeoX) {
  expect_roles("bert",
               {{"embeddings.word_embeddings.weight", {30522, 768}, "", Role::kEmbedding},
                {"embeddings.LayerNorm.weight", {768}, "", Role::kNorm},
                {"encoder.layer.0.attention.self.query.weight",
                 {768, 768},
                 "Linear",
                 Role::kAttentionQ,
                 {12}},
                {"encoder.layer.0.attention.self.key.weight",
                 {768, 768},
                 "Linear",
                 Role::kAttentionK,
                 {12}},
                {"encoder.layer.0.attention.self.value.weight",
                 {768, 768},
                 "Linear",
                 Role::kAttentionV,
                 {12}},
                {"encoder.layer.0.attention.output.dense.weight",
                 {768, 768},
                 "Linear",
                 Role::kAttentionO,
                 {12},
                 1},
                {"encoder.layer.0.intermediate.dense.weight",
                 {3072, 768},
                 "Linear",
                 Role::kHiddenMatrix},
                {"encoder.layer.0.output.dense.weight",
                 {768, 3072},
                 "Linear",
                 Role::kHiddenMatrix},
                {"pooler.dense.weight", {768, 768}, "Linear", Role::kHiddenMatrix},
                {"classifier.weight", {2, 768}, "Linear", Role::kHead}},
               with_heads(12, 12, 64));
  expect_roles("gpt-neox",
               {{"gpt_neox.embed_in.weight", {50432, 512}, "", Role::kEmbedding},
                {"gpt_neox.layers.0.attention.query_key_value.weight",
                 {1536, 512},
                 "",
                 Role::kAttentionFusedQkv,
                 {8, 8, 8}},
                {"gpt_neox.layers.0.attention.dense.weight",
                 {512, 512},
                 "",
                 Role::kAttentionO,
                 {8},
                 1},
                {"gpt_neox.layers.0.mlp.dense_h_to_4h.weight",
                 {2048, 512},
                 "",
                 Role::kHiddenMatrix},
                {"gpt_neox.layers.0.mlp.dense_4h_to_h.weight",
                 {512, 2048},
                 "",
                 Role::kHiddenMatrix},
                {"embed_out.weight", {50432, 512}, "", Role::kHead}},
               with_heads(8, 8, 64));
}

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

TEST(RoutingZoo, MixtureOfExperts) {
  expect_roles(
      "mixtral",
      {{"model.layers.0.block_sparse_moe.gate.weight", {8, 512}, "Linear", Role::kRouter},
       {"model.layers.0.block_sparse_moe.experts.0.w1.weight",
        {1024, 512},
        "Linear",
        Role::kHiddenMatrix},
       {"model.layers.1.mlp.gate.weight", {64, 512}, "Linear", Role::kRouter},
       {"model.layers.1.mlp.gate_proj.weight",
        {1024, 512},
        "Linear",
        Role::kHiddenMatrix},
       {"model.layers.1.mlp.shared_expert_gate.weight",
        {1, 512},
        "Linear",
        Role::kRouter},
       {"model.layers.2.mlp.router.weight", {8, 512}, "Router", Role::kRouter},
       {"model.layers.2.mlp.experts.gate_up_proj",
        {8, 512, 2048},
        "Experts",
        Role::kExpertStack,
        {8}},
       {"model.layers.2.mlp.experts.down_proj",
        {8, 1024, 512},
        "Experts",
        Role::kExpertStack,
        {8}}});
  // a gated MLP that calls its halves gate, up and down
  expect_roles("glu",
               {{"layers.0.mlp.gate.weight", {64, 32}, "Linear", Role::kHiddenMatrix},
                {"layers.0.mlp.up.weight", {64, 32}, "Linear", Role::kHiddenMatrix},
                {"layers.0.mlp.down.weight", {32, 64}, "Linear", Role::kHiddenMatrix}});
}

TEST(RoutingZoo, LoraAdapters) {
  const std::string layer = "base_model.model.model.layers.0.self_attn.q_proj.";
  const std::string base = layer + "base_layer.weight",
                    a = layer + "lora_A.default.weight",
                    b = layer + "lora_B.default.weight";
  expect_roles("lora",
               {{base.c_str(), {2048, 1024}, "Linear", Role::kAttentionQ, {16}},
                {a.c_str(), {8, 1024}, "Linear", Role::kAdapterA},
                {b.c_str(), {2048, 8}, "Linear", Role::kHiddenMatrix}},
               with_heads(16, 8, 128));
}

TEST(RoutingZoo, LibTorchTransformerEncoder) {
  expect_roles(
      "transformer encoder",
      {{"encoder.layers.0.self_attn.in_proj_weight",
        {192, 64},
        "torch::nn::MultiheadAttentionImpl",
        Role::kAttentionFusedQkv,
        {4, 4, 4}},
       {"encoder.layers.0.self_attn.in_proj_bias",
        {192},
        "torch::nn::MultiheadAttentionImpl",
        Role::kBias},
       {"encoder.layers.0.self_attn.out_proj.weight",
        {64, 64},
        "torch::nn::LinearImpl",
        Role::kAttentionO,
        {4},
        1},
       {"encoder.layers.0.linear1.weight",
        {256, 64},
        "torch::nn::LinearImpl",
        Role::kHiddenMatrix},
       {"encoder.layers.0.linear2.weight",
        {64, 256},
        "torch::nn::LinearImpl",
        Role::kHiddenMatrix},
       {"encoder.layers.0.norm1.weight", {64}, "torch::nn::LayerNormImpl", Role::kNorm}},
      with_heads(4, 0, 0));
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
