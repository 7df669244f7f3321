// SPDX-License-Identifier: Apache-2.0
// How weights are stored and read: experts (in, out) or (out, in), stacks or
// convolutions, the heads of linear attention, the layers that end a model.
#include <cmath>
#include <set>

#include "pion/optim/routing_zoo.h"
#include "tests/thrown_message.h"

namespace pion {
namespace {

// E experts of width w and I hidden units; projections stored (in, out) or (out, in).
std::vector<ParameterDescription> mixture(const std::string& up, bool in_out,
                                          std::int64_t width, std::int64_t hidden,
                                          std::int64_t halves) {
  const std::int64_t outputs = halves * hidden;
  const auto stored = [&](std::int64_t out, std::int64_t in) {
    return in_out ? std::vector<std::int64_t>{4, in, out}
                  : std::vector<std::int64_t>{4, out, in};
  };
  return {
      {"model.embed_tokens.weight", {100, width}, "Embedding", "", "f32"},
      {"model.layers.0.mlp.router.weight", {4, width}, "Router", "", "f32"},
      {"model.layers.0.mlp.experts." + up, stored(outputs, width), "Experts", "", "f32"},
      {"model.layers.0.mlp.experts.down_proj", stored(width, hidden), "Experts", "",
       "f32"}};
}

RoutingOptions spectral() {
  RoutingOptions options;
  MuonRule muon;
  muon.scale = Scale::kSpectral;
  options.matrices = muon;
  return options;
}

// The scale that a block of the route gets, of its outputs and inputs.
double scale_of(const Route& r) {
  const auto& shape = r.parameter.shape;
  const std::int64_t rows = shape[1], cols = shape[2];
  return r.heads.transposed ? rule_scale(*matrix_rule(r.rule), cols, rows)
                            : rule_scale(*matrix_rule(r.rule), rows, cols);
}

TEST(Experts, CountAsOutputsByInputsHoweverTheyAreStored) {
  for (const bool in_out : {true, false}) {
    // fused gate and up of GPT-OSS and Llama 4; one up projection; wide, narrow experts
    for (const auto& [up, halves] : std::vector<std::pair<std::string, std::int64_t>>{
             {"gate_up_proj", 2}, {"up_proj", 1}}) {
      for (const std::int64_t hidden : {16, 48, 64}) {
        SCOPED_TRACE(up + " " + std::to_string(hidden) + (in_out ? " in out" : ""));
        const Routing routing =
            route(mixture(up, in_out, /*width=*/32, hidden, halves), spectral());
        ASSERT_EQ(routing.routes[2].role, Role::kExpertStack);
        const double outputs = static_cast<double>(halves * hidden);
        EXPECT_DOUBLE_EQ(scale_of(routing.routes[2]), std::sqrt(outputs / 32.0));
        EXPECT_DOUBLE_EQ(scale_of(routing.routes[3]),
                         std::sqrt(32.0 / static_cast<double>(hidden)));
        EXPECT_EQ(routing.routes[2].heads.heads, std::vector<std::int64_t>{4});
      }
    }
  }
}

TEST(Experts, OrientationIsSavedAndPrinted) {
  const Routing routing = route(mixture("gate_up_proj", true, 32, 48, 2), spectral());
  const Routing back = Routing::from_toml(routing.to_toml());
  EXPECT_TRUE(back.routes[2].heads.transposed);
  EXPECT_EQ(back.routes[2].heads, routing.routes[2].heads);
  const std::string table = back.table();
  expect_says(table, "spectral 1.732");   // sqrt(96 / 32)
  expect_says(table, "spectral 0.8165");  // sqrt(32 / 48)
  expect_says(table, "stored (in, out)");
}

TEST(Experts, AreAskedForWhereNothingTellsAndTheScaleNeedsIt) {
  std::vector<ParameterDescription> alone = {
      {"layers.0.experts.up_proj", {4, 32, 16}, "Experts", "", "f32"}};
  const std::string message = message_of([&] { route(alone, spectral()); });
  expect_says(message, "layers.0.experts.up_proj  [4, 32, 16]");
  expect_says(message, "stored (out, in) or (in, out)");
  const Routing routing = route(alone, {});  // 0.2 sqrt(max) is the same for both
  expect_says(routing.routes[0].reason, "stored (out, in) or (in, out)");
  for (const auto& [decision, scale] : std::vector<std::pair<std::string, double>>{
           {"stack", std::sqrt(2.0)}, {"stack_in_out", std::sqrt(0.5)}}) {
    RoutingOptions options = spectral();
    options.overrides = {{"*up_proj", decision}};
    EXPECT_DOUBLE_EQ(scale_of(route(alone, options).routes[0]), scale) << decision;
  }
  alone[0].frozen = true;  // takes no step
  EXPECT_EQ(route(alone, spectral()).routes.size(), 1u);
}

TEST(Stacks, OfFourDimensionsAreNoConvolutionsWithoutAWord) {
  const std::vector<ParameterDescription> files = {
      {"layers.0.moe.experts.w1", {2, 4, 32, 16}, "", "", ""},
      {"layers.0.conv.weight", {8, 4, 3, 3}, "", "", ""}};
  const std::string message = message_of([&] { route(files, {}); });
  expect_says(message, "got 1 that");
  expect_says(message, "experts.w1  [2, 4, 32, 16]");
  expect_says(message, "\"stack\", \"stack_in_out\", \"convolution\"");
  RoutingOptions options;
  options.overrides = {{"*w1", "stack"}};
  const Routing stack = route(files, options);
  EXPECT_EQ(stack.routes[0].role, Role::kExpertStack);
  EXPECT_EQ(stack.routes[0].heads.heads, std::vector<std::int64_t>{8});
  EXPECT_EQ(stack.routes[1].role, Role::kConvolution);
  options.overrides = {{"*w1", "convolution"}};
  EXPECT_EQ(route(files, options).routes[0].role, Role::kConvolution);
  options.overrides = {{"*w1", "matrix"}};
  expect_says(message_of([&] { route(files, options); }),
              "must be decided as a stack of matrices");
  options.overrides = {{"*w1", "stack"}, {"*conv*", "stak"}};
  expect_says(message_of([&] { route(files, options); }), "did you mean \"stack\"?");
  const std::vector<ParameterDescription> flat = {{"a.up_proj", {4, 4}, "", "", ""}};
  options.overrides = {{"*", "stack"}};
  expect_says(message_of([&] { route(flat, options); }), "three dimensions or more");
}

// Qwen3-Next's sizes: the softmax attention's 16 heads of 256 divide the linear
// attention's 32 value heads of 128 just as well.
std::vector<ParameterDescription> qwen3_next(const std::string& type) {
  const std::string a = "model.layers.0.linear_attn.", b = "model.layers.3.self_attn.";
  return {{a + "A_log", {32}, "Qwen3NextGatedDeltaNet", "", ""},
          {a + "in_proj_qkvz.weight", {12288, 2048}, type, "", ""},
          {a + "in_proj_ba.weight", {64, 2048}, type, "", ""},
          {a + "out_proj.weight", {2048, 4096}, type, "", ""},
          {b + "o_proj.weight", {2048, 4096}, type, "", ""}};
}

TEST(LinearAttention, IsCutByItsOwnHeads) {
  RoutingOptions options = with_heads(16, 2, 256);
  options.attention.linear_key_heads = 16, options.attention.linear_value_heads = 32;
  const Routing routing = route(qwen3_next("Linear"), options);
  EXPECT_EQ(routing.routes[3].heads.heads, std::vector<std::int64_t>{32});
  EXPECT_EQ(routing.routes[3].heads.axis, 1);
  EXPECT_EQ(routing.routes[4].heads.heads, std::vector<std::int64_t>{16});
  EXPECT_EQ(routing.routes[1].heads, HeadLayout{});  // interleaved by key heads
  expect_says(routing.routes[3].reason, "32 linear heads of 128");
  const Routing unknown = route(qwen3_next("Linear"), with_heads(16, 2, 256));
  EXPECT_EQ(unknown.routes[3].heads.heads, std::vector<std::int64_t>{1});
  expect_says(unknown.routes[3].reason, "linear attention, head count unknown");
  options.attention.linear_value_heads = 5;
  expect_says(message_of([&] { route(qwen3_next("Linear"), options); }),
              "linear_value_heads must divide 4096, got 5");
}

TEST(GatedAttention, CutsQueriesAndGates) {
  for (const std::int64_t head_dim : {0, 8}) {
    const Routing routing =
        route({{"layers.0.self_attn.q_proj.weight", {64, 32}, "Linear", "", ""},
               {"layers.0.self_attn.k_proj.weight", {16, 32}, "Linear", "", ""},
               {"layers.0.self_attn.o_proj.weight", {32, 32}, "Linear", "", ""}},
              with_heads(4, 2, head_dim));
    EXPECT_EQ(routing.routes[0].heads.heads, std::vector<std::int64_t>{8});
    EXPECT_EQ(routing.routes[1].heads.heads, std::vector<std::int64_t>{2});
    EXPECT_EQ(routing.routes[2].heads.heads, std::vector<std::int64_t>{4});
  }
}

// DeepSeek's configs give the rotary part of a head as head_dim; values have a width of
// their own.
TEST(LatentAttention, IsCutByHeadsOfItsOwnWidth) {
  const auto table = std::vector<Expected>{
      {"layers.0.self_attn.q_proj.weight", {48, 32}, "Linear", Role::kAttentionQ, {4}},
      {"layers.0.self_attn.kv_a_proj_with_mqa.weight",
       {12, 32},
       "Linear",
       Role::kHiddenMatrix},
      {"layers.0.self_attn.kv_b_proj.weight", {64, 8}, "Linear", Role::kHiddenMatrix},
      {"layers.0.self_attn.o_proj.weight", {32, 32}, "Linear", Role::kAttentionO, {4}, 1},
      {"layers.0.self_attn.o_norm.weight", {32}, "KimiLinearRMSNorm", Role::kNorm}};
  expect_roles("deepseek", table, with_heads(4, 4, 4));
}

// MiniMax's lightning attention interleaves queries, keys and values; the indexer of a
// sparse attention has one key for all heads.
TEST(LinearAttention, OfOtherKindsStaysWhole) {
  const std::vector<Expected> table = {
      {"layers.0.self_attn.qkv_proj.weight",
       {96, 32},
       "Linear",
       Role::kAttentionFusedQkv},
      {"layers.0.self_attn.out_proj.weight",
       {32, 32},
       "Linear",
       Role::kAttentionO,
       {1},
       1},
      {"layers.0.self_attn.output_gate.weight", {32, 32}, "Linear", Role::kHiddenMatrix},
      {"layers.1.self_attn.q_proj.weight", {32, 32}, "Linear", Role::kAttentionQ, {4}},
      {"layers.1.self_attn.indexer.wk.weight", {16, 32}, "Linear", Role::kHiddenMatrix}};
  expect_roles("minimax", table, with_heads(4, 2, 8));
}

// Kimi Linear and Olmo Hybrid give queries, keys and values projections of their own,
// under the name of a softmax attention: its short convolution tells it.
TEST(LinearAttention, IsToldByItsShortConvolutions) {
  const std::string a = "layers.0.self_attn.", b = "layers.3.self_attn.";
  RoutingOptions options = with_heads(2, 1, 32);
  options.attention.linear_key_heads = 4, options.attention.linear_value_heads = 8;
  const auto name = [](const std::string& text) { return text.c_str(); };
  const std::string conv = a + "conv1d.weight", q = a + "q_proj.weight",
                    k = a + "k_proj.weight", v = a + "v_proj.weight",
                    o = a + "o_proj.weight", g = a + "g_proj.weight",
                    soft_q = b + "q_proj.weight", soft_k = b + "k_proj.weight";
  expect_roles("olmo hybrid",
               {{name(conv), {256, 1, 4}, "Conv1d", Role::kVector},
                {name(q), {64, 64}, "Linear", Role::kAttentionQ, {4}},
                {name(k), {64, 64}, "Linear", Role::kAttentionK, {4}},
                {name(v), {128, 64}, "Linear", Role::kAttentionV, {8}},
                {name(g), {128, 64}, "Linear", Role::kHiddenMatrix},
                {name(o), {64, 128}, "Linear", Role::kAttentionO, {8}, 1},
                {name(soft_q), {64, 64}, "Linear", Role::kAttentionQ, {2}},
                {name(soft_k), {32, 64}, "Linear", Role::kAttentionK, {1}}},
               options);
}

TEST(LinearAttention, ReadsItsCountsFromConfigs) {
  const auto expect_counts = [](const char* json, std::int64_t keys,
                                std::int64_t values) {
    const AttentionShape shape = attention_shape_from_config(json);
    EXPECT_EQ(shape.linear_key_heads, keys) << json;
    EXPECT_EQ(shape.linear_value_heads, values) << json;
  };
  expect_counts(
      R"({"num_attention_heads": 16, "head_dim": 256, "linear_num_key_heads": 16, "linear_num_value_heads": 32})",
      16, 32);
  expect_counts(R"({"num_attention_heads": 4, "linear_num_heads": 8})", 8, 8);
  expect_counts(R"({"num_attention_heads": 4, "linear_attn_config": {"num_heads": 32}})",
                32, 32);
  expect_counts(R"({"num_attention_heads": 4, "linear_attn_config": null})", 0, 0);
}

std::vector<ParameterDescription> linears(
    const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& layers) {
  std::vector<ParameterDescription> all;
  for (const auto& [name, shape] : layers) {
    all.push_back({name + ".weight", shape, "Linear", "", ""});
  }
  return all;
}

// Asks for exactly these of the layers.
void expect_asked(const std::vector<ParameterDescription>& layers,
                  const std::set<std::string>& asked) {
  const std::string message = message_of([&] { route(layers, {}); });
  expect_says(message, "got " + std::to_string(asked.size()) + " that");
  for (const ParameterDescription& p : layers) {
    const bool listed = message.find("\n  " + p.name + "  [") != std::string::npos;
    EXPECT_EQ(listed, asked.contains(p.name)) << p.name << "\n" << message;
  }
  expect_says(message, "may end the model");
}

TEST(Ends, OfAVariationalAutoencoderAreAskedFor) {
  const auto vae = linears({{"fc1", {400, 784}},
                            {"fc21", {20, 400}},
                            {"fc22", {20, 400}},
                            {"fc3", {400, 20}},
                            {"fc4", {784, 400}}});
  expect_asked(vae, {"fc21.weight", "fc22.weight", "fc4.weight"});
  RoutingOptions options;
  options.overrides = {{"fc2?.*", "rest"}, {"fc4.*", "rest"}};
  const Routing routing = route(vae, options);
  EXPECT_EQ(routing.routes[0].role, Role::kHiddenMatrix);
  EXPECT_EQ(routing.routes[3].role, Role::kHiddenMatrix);
  EXPECT_FALSE(is_matrix_rule(routing.routes[4].rule));
  // a Sequential as decoder, in a model whose named head is its latent mean
  expect_asked(linears({{"encoder.0", {400, 784}},
                        {"encoder.2", {200, 400}},
                        {"mu", {20, 200}},
                        {"logvar", {20, 200}},
                        {"decoder.0", {400, 20}},
                        {"decoder.2", {784, 400}}}),
               {"logvar.weight", "decoder.2.weight"});
}

TEST(Ends, OfTwinCriticsAreAskedFor) {
  expect_asked(linears({{"l1", {256, 23}},
                        {"l2", {256, 256}},
                        {"l3", {1, 256}},
                        {"l4", {256, 23}},
                        {"l5", {256, 256}},
                        {"l6", {1, 256}}}),
               {"l3.weight", "l6.weight"});
}

TEST(Ends, OfChainsAndTrunksAreNot) {
  for (const auto& layers :
       {linears({{"fc1", {64, 10}}, {"fc2", {64, 64}}, {"fc3", {10, 64}}}),
        linears({{"fc1", {64, 10}}, {"fc2", {64, 80}}, {"fc3", {10, 64}}}),  // joined
        linears({{"encoder.0", {400, 784}},
                 {"encoder.2", {20, 400}},
                 {"decoder.0", {400, 20}},
                 {"decoder.2", {784, 400}}})}) {
    const Routing routing = route(layers, {});
    EXPECT_EQ(routing.routes.back().role, Role::kHead);
    EXPECT_EQ(routing.routes.front().role, Role::kHiddenMatrix);
  }
  const Routing trunk = route(linears({{"network.0", {64, 10}},
                                       {"network.2", {32, 64}},
                                       {"actor", {4, 32}},
                                       {"critic", {1, 32}}}),
                              {});
  EXPECT_EQ(trunk.routes[1].role, Role::kHiddenMatrix);
  EXPECT_EQ(trunk.routes[2].role, Role::kHead);
}

TEST(Frozen, ParametersAreMarkedAndCountedApart) {
  std::vector<ParameterDescription> model = {
      {"layers.0.mlp.up_proj.weight", {64, 32}, "Linear", "", "f32"},
      {"layers.0.mlp.down_proj.weight", {32, 64}, "Linear", "", "f32"},
      {"table", {7, 5}, "Oracle", "", "f32"}};
  model[1].frozen = model[2].frozen = true;
  const Routing routing = route(model, {});  // the table need not be placed
  EXPECT_EQ(rule_name(routing.routes[2].rule), "adamw");
  const std::string table = routing.table();
  expect_says(table, "frozen: 2 parameters, 2083 numbers");
  expect_says(table, "pion: 1 parameters, 2048 numbers");
  expect_says(table, "name down_proj in MLP; frozen");
  const Routing back = Routing::from_toml(routing.to_toml());
  EXPECT_TRUE(back.routes[1].parameter.frozen);
  EXPECT_FALSE(back.routes[0].parameter.frozen);
  EXPECT_EQ(back.table(), table);
}

}  // namespace
}  // namespace pion
