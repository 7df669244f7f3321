// SPDX-License-Identifier: Apache-2.0
// Preset "paper-vla" on the public parameter names of vision-language-action models. The
// rule of every name is its authors': their openpi trainer by prefix, their VLA-Adapter
// trainer by part of the name.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "pion/optim/routing.h"

namespace pion {
namespace {

struct Named {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string rule;
  std::string module = "Linear";
};

void expect_rules(const std::string& model, const std::vector<Named>& table) {
  SCOPED_TRACE(model);
  std::vector<ParameterDescription> parameters;
  for (const Named& n : table) parameters.push_back({n.name, n.shape, n.module, "", ""});
  const Routing routing = route_preset(parameters, "paper-vla", {});
  for (std::size_t i = 0; i < table.size(); ++i) {
    const Route& r = routing.routes[i];
    EXPECT_EQ(rule_name(r.rule), table[i].rule) << table[i].name << ": " << r.reason;
    EXPECT_EQ(is_matrix_rule(r.rule), is_matrix_role(r.role)) << table[i].name;
    const MatrixRule* matrix = matrix_rule(r.rule);
    if (matrix == nullptr) continue;
    EXPECT_TRUE(matrix->nesterov) << table[i].name;
    EXPECT_EQ(matrix->scale, Scale::kOfficial);
    EXPECT_EQ(matrix->scale_factor, 0.2);
    EXPECT_EQ(matrix->weight_decay, 1e-2);
    EXPECT_EQ(matrix->lr, 1e-4);
  }
}

std::vector<Named> gemma_layer(const std::string& at, const std::string& rule) {
  return {{at + "self_attn.q_proj.weight", {64, 32}, rule},
          {at + "self_attn.k_proj.weight", {8, 32}, rule},
          {at + "self_attn.v_proj.weight", {8, 32}, rule},
          {at + "self_attn.o_proj.weight", {32, 64}, rule},
          {at + "mlp.gate_proj.weight", {48, 32}, rule},
          {at + "mlp.up_proj.weight", {48, 32}, rule},
          {at + "mlp.down_proj.weight", {32, 48}, rule}};
}

std::vector<Named> vision_layer(const std::string& at) {
  return {{at + "self_attn.q_proj.weight", {16, 16}, "muon"},
          {at + "self_attn.k_proj.weight", {16, 16}, "muon"},
          {at + "self_attn.v_proj.weight", {16, 16}, "muon"},
          {at + "self_attn.out_proj.weight", {16, 16}, "muon"},
          {at + "layer_norm1.weight", {16}, "adamw", "LayerNorm"},
          {at + "mlp.fc1.weight", {24, 16}, "muon"},
          {at + "mlp.fc2.weight", {16, 24}, "muon"}};
}

void append(std::vector<Named>& table, const std::vector<Named>& more) {
  table.insert(table.end(), more.begin(), more.end());
}

// PI0Pytorch of openpi; LeRobot's PI0Policy and PI05Policy hold it as `model`.
std::vector<Named> openpi(const std::string& at, bool pi05) {
  const std::string vlm = at + "paligemma_with_expert.paligemma.model.";
  const std::string expert = at + "paligemma_with_expert.gemma_expert.";
  const std::string vision = vlm + "vision_tower.vision_model.";
  std::vector<Named> table = {
      {vision + "embeddings.patch_embedding.weight", {16, 3, 4, 4}, "adamw", "Conv2d"},
      {vision + "embeddings.position_embedding.weight", {9, 16}, "adamw", "Embedding"}};
  append(table, vision_layer(vision + "encoder.layers.0."));
  append(table,
         {{vlm + "multi_modal_projector.linear.weight", {32, 16}, "muon"},
          {vlm + "language_model.embed_tokens.weight", {90, 32}, "adamw", "Embedding"}});
  append(table, gemma_layer(vlm + "language_model.layers.0.", "muon"));
  append(table,
         {{at + "paligemma_with_expert.paligemma.lm_head.weight", {90, 32}, "adamw"}});
  append(table, gemma_layer(expert + "model.layers.0.", "pion"));
  if (pi05) {  // norms that the time modulates
    const std::string layer = expert + "model.layers.0.";
    append(table, {{layer + "input_layernorm.dense.weight", {96, 32}, "pion"},
                   {layer + "post_attention_layernorm.dense.weight", {96, 32}, "pion"},
                   {expert + "model.norm.dense.weight", {96, 32}, "pion"},
                   {at + "time_mlp_in.weight", {32, 32}, "pion"},
                   {at + "time_mlp_out.weight", {32, 32}, "pion"},
                   {at + "time_mlp_out.bias", {32}, "adamw"}});
  } else {
    append(table, {{expert + "model.norm.weight", {32}, "adamw", "GemmaRMSNorm"},
                   {at + "state_proj.weight", {32, 12}, "pion"},
                   {at + "state_proj.bias", {32}, "adamw"},
                   {at + "action_time_mlp_in.weight", {32, 64}, "pion"},
                   {at + "action_time_mlp_out.weight", {32, 32}, "pion"}});
  }
  append(table, {{expert + "lm_head.weight", {90, 32}, "adamw"},
                 {at + "action_in_proj.weight", {32, 7}, "pion"},
                 {at + "action_in_proj.bias", {32}, "adamw"},
                 {at + "action_out_proj.weight", {7, 32}, "adamw"}});
  return table;
}

TEST(PaperVla, RoutesPi0AndPi05AsItsAuthorsDo) {
  for (const char* at : {"", "model.", "module."}) {  // openpi, LeRobot, DDP
    expect_rules(std::string("pi0 ") + at, openpi(at, false));
    expect_rules(std::string("pi0.5 ") + at, openpi(at, true));
  }
}

TEST(PaperVla, RoutesSmolVla) {
  const std::string vlm = "model.vlm_with_expert.vlm.model.";
  const std::string expert = "model.vlm_with_expert.lm_expert.";
  std::vector<Named> table = {{vlm + "vision_model.embeddings.patch_embedding.weight",
                               {16, 3, 4, 4},
                               "adamw",
                               "Conv2d"},
                              {vlm + "vision_model.embeddings.position_embedding.weight",
                               {9, 16},
                               "adamw",
                               "Embedding"}};
  append(table, vision_layer(vlm + "vision_model.encoder.layers.0."));
  append(table,
         {{vlm + "connector.modality_projection.proj.weight", {32, 64}, "muon"},
          {vlm + "text_model.embed_tokens.weight", {90, 32}, "adamw", "Embedding"}});
  append(table, gemma_layer(vlm + "text_model.layers.0.", "muon"));
  append(table, {{"model.vlm_with_expert.vlm.lm_head.weight", {90, 32}, "adamw"}});
  append(table, gemma_layer(expert + "layers.0.", "pion"));
  append(table, {{expert + "norm.weight", {32}, "adamw", "LlamaRMSNorm"},
                 {"model.state_proj.weight", {32, 12}, "pion"},
                 {"model.action_in_proj.weight", {32, 7}, "pion"},
                 {"model.action_out_proj.weight", {7, 32}, "adamw"},
                 {"model.action_time_mlp_in.weight", {32, 64}, "pion"},
                 {"model.action_time_mlp_out.weight", {32, 32}, "pion"}});
  expect_rules("smolvla", table);
}

// Its patch embeddings take Muon there and AdamW here, as every input layer.
TEST(PaperVla, RoutesVlaAdapter) {
  const std::string head = "action_head.module.model.";
  std::vector<Named> table = {
      {"vla.module.vision_backbone.featurizer.blocks.0.attn.qkv.weight",
       {48, 16},
       "muon"},
      {"vla.module.vision_backbone.featurizer.blocks.0.attn.proj.weight",
       {16, 16},
       "muon"},
      {"vla.module.vision_backbone.featurizer.blocks.0.mlp.fc1.weight", {24, 16}, "muon"},
      {"vla.module.projector.fc1.weight", {64, 16}, "muon"},
      {"vla.module.projector.fc2.weight", {32, 64}, "muon"},
      {"vla.module.projector.fc3.weight", {32, 32}, "muon"},
      {"vla.module.action_queries.weight", {64, 32}, "adamw", "Embedding"},
      {"vla.module.language_model.model.embed_tokens.weight",
       {90, 32},
       "adamw",
       "Embedding"}};
  append(table, gemma_layer("vla.module.language_model.model.layers.0.", "muon"));
  append(table, {{"vla.module.language_model.lm_head.weight", {90, 32}, "adamw"},
                 {head + "layer_norm1.weight", {224}, "adamw", "LayerNorm"},
                 {head + "fc1.weight", {32, 224}, "pion"}});
  for (const char* part : {"q_proj", "k_self", "v_self", "k_adapter", "v_adapter",
                           "k_task", "v_task", "o_proj", "ffn.1", "film_gen.0"}) {
    append(table, {{head + "mlp_resnet_blocks.0." + part + ".weight", {32, 32}, "pion"}});
  }
  append(table, {{head + "fc2.weight", {7, 32}, "adamw"},
                 {"proprio_projector.module.fc1.weight", {32, 8}, "muon"},
                 {"proprio_projector.module.fc2.weight", {32, 32}, "muon"}});
  expect_rules("vla-adapter", table);
}

TEST(PaperVla, TakesNoMixtureAndNoExtractionForAnActionModule) {
  expect_rules("a mixture as language tower",
               {{"model.layers.0.mlp.shared_expert.up_proj.weight", {48, 32}, "muon"},
                {"model.layers.0.mlp.experts.0.up_proj.weight", {48, 32}, "muon"},
                {"feature_extraction.blocks.0.mlp.fc1.weight", {48, 32}, "muon"},
                {"interaction.blocks.0.mlp.fc1.weight", {48, 32}, "muon"},
                {"action_expert.layers.0.mlp.up_proj.weight", {48, 32}, "pion"}});
}

}  // namespace
}  // namespace pion
