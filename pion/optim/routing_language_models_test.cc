// SPDX-License-Identifier: Apache-2.0
// The parameters of well-known language models, and what each of them is.
#include "pion/optim/routing_zoo.h"

namespace pion {
namespace {

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
                    b = layer + "lora_B.default.weight",
                    dora = layer + "lora_magnitude_vector.default.weight";
  expect_roles("lora",
               {{base.c_str(), {2048, 1024}, "Linear", Role::kAttentionQ, {16}},
                {a.c_str(), {8, 1024}, "Linear", Role::kAdapterA},
                {b.c_str(), {2048, 8}, "Linear", Role::kHiddenMatrix},
                {dora.c_str(), {2048}, "DoraLinearLayer", Role::kVector},
                {"base_model.model.lm_head.original_module.weight",
                 {256, 1024},
                 "Linear",
                 Role::kHead},
                {"base_model.model.lm_head.modules_to_save.default.weight",
                 {256, 1024},
                 "Linear",
                 Role::kHead}},
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

}  // namespace
}  // namespace pion
