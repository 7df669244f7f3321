// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/routing.h"

#include <gtest/gtest.h>

#include "pion/optim/glob.h"
#include "tests/random_numbers.h"
#include "tests/thrown_message.h"

namespace pion {
namespace {

std::vector<ParameterDescription> small_model() {
  return {{"embed_tokens.weight", {100, 32}, "Embedding", "", "f32"},
          {"layers.0.self_attn.q_proj.weight", {64, 32}, "Linear", "", "f32"},
          {"layers.0.self_attn.k_proj.weight", {32, 32}, "Linear", "", "f32"},
          {"layers.0.self_attn.o_proj.weight", {32, 64}, "Linear", "", "f32"},
          {"layers.0.attn.qkv.weight", {96, 32}, "Linear", "", "bf16"},
          {"layers.0.mlp.up_proj.weight", {128, 32}, "Linear", "", "f32"},
          {"layers.0.mlp.experts.w1", {4, 32, 16}, "Experts", "", "f32"},
          {"layers.0.conv.weight", {8, 4, 3, 3}, "Conv2d", "", "f32"},
          {"norm.weight", {32}, "LayerNorm", "", "f32"},
          {"lm_head.weight", {100, 32}, "Linear", "embed_tokens.weight", "f32"}};
}
RoutingOptions counts(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim) {
  RoutingOptions options;
  options.attention = {heads, kv_heads, head_dim};
  return options;
}

TEST(Glob, MatchesStarsAndQuestionMarks) {
  EXPECT_TRUE(matches_glob("*", ""));
  EXPECT_TRUE(matches_glob("*.proj.weight", "a.b.proj.weight"));
  EXPECT_TRUE(matches_glob("layers.?.w*", "layers.3.w1.weight"));
  EXPECT_TRUE(matches_glob("a*b*c", "aXbYbZc"));
  EXPECT_FALSE(matches_glob("layers.?.w", "layers.10.w"));
  EXPECT_FALSE(matches_glob("abc", "ab"));
  EXPECT_FALSE(matches_glob("", "a"));
  EXPECT_FALSE(matches_glob("a.b", "axb"));
}

TEST(Route, ListsEveryParameterThatItCannotPlace) {
  auto parameters = small_model();
  parameters.push_back({"mystery", {5, 7}, "Oracle", "", ""});
  parameters.push_back({"riddle.table", {3, 4, 5}, "", "", ""});
  const std::string message = message_of([&] { route(parameters, {}); });
  expect_says(message, "got 2 that");
  expect_says(message, "mystery  [5, 7]  in Oracle");
  expect_says(message, "riddle.table  [3, 4, 5]");
  expect_says(message, "{\"mystery\", \"matrix\"}");
  RoutingOptions decided;
  decided.overrides = {{"myst*", "matrix"}, {"riddle.*", "rest"}};
  const Routing routing = route(parameters, decided);
  EXPECT_EQ(routing.routes[10].role, Role::kHiddenMatrix);
  EXPECT_EQ(rule_name(routing.routes[10].rule), "pion");
  EXPECT_EQ(rule_name(routing.routes[11].rule), "adamw");
}

TEST(Route, ObeysOverridesInTheirOrder) {
  RoutingOptions options = counts(2, 1, 32);
  PionRule pion;
  pion.lr = 0.5;
  options.matrices = pion;
  options.overrides = {{"*.q_proj.*", "muon"}, {"*_proj.*", "rest"}, {"embed*", "pion"}};
  options.attention_by_name = {{"*.qkv.*", {1, 1, 32}}};
  const Routing routing = route(small_model(), options);
  EXPECT_EQ(rule_name(routing.routes[1].rule), "muon");  // still per head
  EXPECT_EQ(routing.routes[1].heads.heads, std::vector<std::int64_t>{2});
  EXPECT_EQ(rule_name(routing.routes[2].rule), "adamw");
  EXPECT_EQ(rule_name(routing.routes[0].rule), "pion");
  EXPECT_EQ(learning_rate(routing.routes[0].rule), 0.5);  // the options' own pion
}

TEST(Route, RefusesDecisionsThatItCannotFollow) {
  const auto refused = [](RoutingOptions options, const std::string& part) {
    expect_says(message_of([&] { route(small_model(), options); }), part);
  };
  RoutingOptions options;
  options.overrides = {{"layers.1.*", "matrix"}};
  refused(options, "override \"layers.1.*\" must match a parameter, got none");
  options.overrides = {{"*", "matrx"}};
  refused(options, "did you mean \"matrix\"?");
  options.overrides = {{"norm.*", "muon"}};
  refused(options, "norm.weight must have two dimensions or more");
  refused(counts(3, 1, 0), "q_proj.weight: heads must divide 64");
  refused(counts(2, 3, 0), "kv_heads must divide 32");
  refused(counts(2, 2, 0), "key and value heads must be as wide as query heads, 32");
  refused(counts(2, 1, 16), "heads times head_dim must be 64");
  RoutingOptions matrix_rest;
  matrix_rest.rest = MuonRule{};
  refused(matrix_rest, "rest must be an element-wise rule");
  RoutingOptions negative;
  set_learning_rate(negative.matrices, -1);
  refused(negative, "route: matrices: lr must be >= 0");
  auto twice = small_model();
  twice.push_back(twice.front());
  expect_says(message_of([&] { route(twice, {}); }), "embed_tokens.weight twice");
}

TEST(Route, SaysSoWhereHeadCountsAreUnknown) {
  const Routing routing = route(small_model(), {});
  expect_says(routing.routes[1].reason, "head count unknown: taken whole");
  EXPECT_EQ(routing.routes[1].heads.heads, std::vector<std::int64_t>{1});
  expect_says(routing.routes[4].reason, "cut into Q, K, V");
  EXPECT_EQ(routing.routes[4].heads.sizes, (std::vector<std::int64_t>{32, 32, 32}));
}

TEST(Route, RefusesFlattenedModels) {
  for (const auto& p : std::vector<ParameterDescription>{
           {"_fsdp_wrapped_module._flat_param", {1 << 20}, "", "", ""},
           {"layers.0.q_proj.weight", {4096}, "", "", ""},
           {"head.weight", {4096}, "Linear", "", ""}}) {
    const std::string message = message_of([&] { route({p}, {}); });
    expect_says(message, p.name);
    expect_says(message, "before it is wrapped");
  }
}

TEST(Routing, PrintsAnAlignedTable) {
  RoutingOptions options = counts(2, 1, 32);
  options.attention_by_name = {{"*.qkv.*", {1, 1, 32}}};
  const std::string table = route(small_model(), options).table();
  expect_says(table, "layers.0.self_attn.q_proj.weight  [64, 32]");
  expect_says(table, "attention_o          pion   2 cols");
  expect_says(table, "match_rms_adamw 1.131");  // 0.2 sqrt(32), of a (32 x 32) head
  expect_says(table, "adamw: 3 parameters, 3232 numbers");  // the tied head counts once
  std::size_t column = std::string::npos;
  std::size_t start = 0;
  for (int line = 0; line < 11; ++line) {
    const std::size_t end = table.find('\n', start);
    const std::string text = table.substr(start, end - start);
    if (line == 0) column = text.find("rule");
    EXPECT_EQ(text[column - 1], ' ');
    EXPECT_NE(text[column], ' ') << text;
    start = end + 1;
  }
}

Routing rich_routing() {
  RoutingOptions options = counts(2, 1, 32);
  PionRule pion;
  pion.cutoff = {Cutoff::Kind::kValue, 0.1 + 0.2};  // needs 17 digits
  pion.lr = 1.0 / 3.0;
  options.matrices = pion;
  options.attention_by_name = {{"*.qkv.*", {1, 1, 32}}};
  options.overrides = {
      {"*.up_proj.*", "muon"}, {"*.conv.*", "low_rank_muon"}, {"norm*", "sgd"}};
  Routing routing = route(small_model(), options);
  set_learning_rate(routing.routes[2].rule, 0.25);  // a second pion
  routing.routes[0].reason = "quotes \" and \\ and \n and \x01 and \xc3\xa9";
  routing.routes[3].heads.transposed = true;
  return routing;
}

TEST(Routing, ReadsBackWhatItWrote) {
  const Routing routing = rich_routing();
  const std::string text = routing.to_toml();
  const Routing back = Routing::from_toml(text);
  ASSERT_EQ(back.routes.size(), routing.routes.size());
  for (std::size_t i = 0; i < back.routes.size(); ++i) {
    const Route &a = routing.routes[i], &b = back.routes[i];
    EXPECT_EQ(a.parameter.name, b.parameter.name);
    EXPECT_EQ(a.parameter.shape, b.parameter.shape);
    EXPECT_EQ(a.parameter.module_type, b.parameter.module_type);
    EXPECT_EQ(a.parameter.tied_to, b.parameter.tied_to);
    EXPECT_EQ(a.parameter.dtype, b.parameter.dtype);
    EXPECT_EQ(a.role, b.role);
    EXPECT_EQ(a.heads, b.heads) << a.parameter.name;
    EXPECT_EQ(a.reason, b.reason);
    const auto x = rule_keys(a.rule), y = rule_keys(b.rule);
    ASSERT_EQ(x.size(), y.size());
    for (std::size_t k = 0; k < x.size(); ++k)
      EXPECT_EQ(x[k].value, y[k].value) << x[k].name;
  }
  EXPECT_EQ(back.to_toml(), text);
  back.check_against(small_model());
}

TEST(Routing, NamesTheLineOfAMistake) {
  const std::string good =
      "version = 1\n[rules.a]\nrule = \"muon\"\nlr = 0.1\n[[parameters]]\nname = \"w\"\n"
      "shape = [4, 2]\nrole = \"hidden_matrix\"\nrule = \"a\"\n";
  EXPECT_EQ(Routing::from_toml(good).routes.size(), 1u);
  const auto refused = [&](const std::string& from, const std::string& to,
                           const std::string& line, const std::string& part) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    const std::string message = message_of([&] { Routing::from_toml(text); });
    expect_says(message, "from_toml: line " + line);
    expect_says(message, part);
  };
  refused("lr = 0.1", "lr = ", "4", "must be TOML");
  refused("lr = 0.1", "learning_rate = 0.1", "4", "did you mean \"lr\"");
  refused("lr = 0.1", "lr = \"x\"", "4", "lr must be a number >= 0, got \"x\"");
  refused("lr = 0.1", "lr = -1", "4", "lr must be >= 0, got -1");
  refused("lr = 0.1", "lr = nan", "4", "lr must be >= 0, got nan");
  refused("lr = 0.1", "scale_factor = 3", "2", "scale_factor must be absent");
  refused("\"muon\"", "\"moun\"", "3", "did you mean \"muon\"");
  refused("\"muon\"", "7", "3", "rule must be a string");
  refused("version = 1", "version = 2", "1", "version must be 1, got 2");
  refused("version = 1", "", "1", "version must be there");
  refused("[rules.a]", "[rule.a]", "2", "did you mean \"rules\"");
  refused("\"w\"", "3", "6", "name must be a string");
  refused("shape = [4, 2]", "shape = [4, \"x\"]", "7", "list of integers");
  refused("shape = [4, 2]", "shape = [4, -2]", "5", "dimensions >= 0");
  refused("shape = [4, 2]", "shape = [4000000000000, 4000000000000]", "5", "2^48");
  refused("shape = [4, 2]", "shape = [4]", "5", "two dimensions or more");
  refused("\"hidden_matrix\"", "\"hiden_matrix\"", "8", "did you mean \"hidden_matrix\"");
  refused("rule = \"a\"", "rule = \"b\"", "9", "must name a table [rules.NAME]");
  refused("rule = \"a\"", "rule = \"a\"\nheads = [3]", "5",
          "must divide its rows, 4, got 3");
  refused("rule = \"a\"", "rule = \"a\"\nhead = [2]", "10", "did you mean \"heads\"");
  refused("\"w\"", "\"w\"\nheads = [1]\nrole = \"x\"", "10",
          "must be TOML");  // role twice
}

TEST(Routing, ChecksItselfAgainstAModel) {
  const Routing routing = rich_routing();
  auto parameters = small_model();
  parameters[0].shape = {101, 32};
  parameters[5].name = "layers.0.mlp.up_proj.weights";
  const std::string message = message_of([&] { routing.check_against(parameters); });
  expect_says(
      message,
      "embed_tokens.weight must have shape [100, 32] as in the routing, got [101, 32]");
  expect_says(
      message,
      "layers.0.mlp.up_proj.weight is in the routing but not in the model; did you");
  expect_says(
      message,
      "layers.0.mlp.up_proj.weights [128, 32] is in the model but not in the routing");
}

TEST(Presets, SetTheRulesOfTheirSources) {
  RoutingOptions options = counts(2, 1, 32);
  options.attention_by_name = {{"*.qkv.*", {1, 1, 32}}};
  auto parameters = small_model();
  parameters.push_back(
      {"action_expert.layers.0.mlp.up_proj.weight", {64, 32}, "Linear", "", ""});
  for (const Preset& preset : presets()) {
    EXPECT_FALSE(preset.source.empty());
    const Routing routing = route_preset(parameters, preset.name, options);
    ASSERT_EQ(routing.routes.size(), parameters.size()) << preset.name;
    for (const Route& r : routing.routes) check_rule(r.rule, r.parameter.name);
  }
  const Routing rlvr = route_preset(parameters, "paper-rlvr", options);
  EXPECT_EQ(std::get<PionRule>(rlvr.routes[1].rule).promotion_steps, 0);
  EXPECT_EQ(rlvr.routes[1].heads.heads, std::vector<std::int64_t>{2});
  EXPECT_EQ(rule_name(rlvr.routes[0].rule), "adamw");
  const Routing vla = route_preset(parameters, "paper-vla", options);
  EXPECT_EQ(rule_name(vla.routes[5].rule), "muon");
  EXPECT_EQ(rule_name(vla.routes[6].rule),
            "muon");  // a mixture's experts are no action module
  EXPECT_EQ(rule_name(vla.routes[10].rule), "pion");
  const Routing notes = route_preset(parameters, "field-notes", options);
  EXPECT_EQ(rule_name(notes.routes[5].rule), "muon");
  EXPECT_EQ(rule_name(notes.routes[0].rule), "sgd");
  EXPECT_EQ(learning_rate(notes.routes[0].rule), 1e-5);
  const Routing jax = route_preset(parameters, "purejaxrl", options);
  EXPECT_EQ(rule_name(jax.routes[0].rule), "muon");  // by shape alone
  EXPECT_EQ(rule_name(jax.routes[8].rule), "adamw");

  expect_says(message_of([&] { route_preset(small_model(), "paper-vla", options); }),
              "must find matrices of an action module");
  expect_says(message_of([&] { route_preset(parameters, "paper-rvlr", options); }),
              "did you mean \"paper-rlvr\"");
  options.matrices = MuonRule{};
  expect_says(message_of([&] { route_preset(parameters, "paper-rlvr", options); }),
              "must be left at their defaults");
}

TEST(AttentionShapeFromConfig, ReadsTheCountsOfKnownFamilies) {
  const auto expect_shape = [](const char* json, std::int64_t h, std::int64_t k,
                               std::int64_t d) {
    const AttentionShape shape = attention_shape_from_config(json);
    EXPECT_EQ(shape.heads, h) << json;
    EXPECT_EQ(shape.kv_heads, k) << json;
    EXPECT_EQ(shape.head_dim, d) << json;
  };
  expect_shape(
      R"({"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "hidden_size": 1024})",
      16, 8, 128);
  expect_shape(R"({"n_head": 12, "n_embd": 768})", 12, 12, 64);
  expect_shape(R"({"num_attention_heads": 32, "hidden_size": 4096, "head_dim": null})",
               32, 32, 128);
  expect_shape(R"({"num_attention_heads": 71, "hidden_size": 4544, "multi_query": true})",
               71, 1, 64);
  expect_shape(
      R"({"text_config": {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256}, "num_attention_heads": 3})",
      8, 1, 256);
  expect_shape("{}", 0, 0, 0);
  for (const auto& [json, part] : std::vector<std::pair<const char*, const char*>>{
           {"{", "must be JSON"},
           {"[]", "JSON object, got array"},
           {R"({"num_attention_heads": "8"})",
            "must be an integer in [1, 16777216], got string"},
           {R"({"num_attention_heads": -8})", "got -8"},
           {R"({"num_attention_heads": 8.5})", "got 8.5"},
           {R"({"num_attention_heads": 18446744073709551615})", "must be an integer"},
           {R"({"num_attention_heads": 8, "num_key_value_heads": 3})",
            "kv_heads must divide heads"},
           {R"({"num_attention_heads": 7, "hidden_size": 64})",
            "heads must divide the width"}}) {
    expect_says(message_of([&] { attention_shape_from_config(json); }), part);
  }
}

// Changes a few bytes of a good text; the reader must accept or throw
// std::invalid_argument.
template <class Read>
std::pair<int, int> read_mutations(const std::string& good, int rounds, Read read) {
  RandomNumbers random(2026);
  const std::string alphabet = "[]{}\"'=.,#\\\n0123456789-+eEnaif_xu \t";
  int accepted = 0, refused = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string text = good;
    for (std::int64_t edits = random.integer(1, 6); edits > 0 && !text.empty(); --edits) {
      const auto at = static_cast<std::size_t>(
          random.integer(0, static_cast<std::int64_t>(text.size()) - 1));
      const auto letter = alphabet[static_cast<std::size_t>(
          random.integer(0, static_cast<std::int64_t>(alphabet.size()) - 1))];
      switch (random.integer(0, 5)) {
        case 0:
          text.erase(at, static_cast<std::size_t>(random.integer(1, 12)));
          break;
        case 1:
          text.insert(at, 1, letter);
          break;
        case 2:
          text[at] = letter;
          break;
        case 3:
          text[at] = static_cast<char>(random.integer(0, 255));
          break;
        case 4:
          text.insert(at, text.substr(at / 2, 40));
          break;
        default:
          text.resize(at);
          break;
      }
    }
    try {
      read(text);
      ++accepted;
    } catch (const std::invalid_argument&) {
      ++refused;
    }
  }
  return {accepted, refused};
}

TEST(Fuzz, RoutingTomlEndsInARoutingOrInvalidArgument) {
  const auto [accepted, refused] =
      read_mutations(rich_routing().to_toml(), 1500, [](const std::string& text) {
        const Routing routing = Routing::from_toml(text);
        routing.table();                        // what is accepted can be used
        Routing::from_toml(routing.to_toml());  // and written
      });
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 0);
}

TEST(Fuzz, ConfigJsonEndsInAShapeOrInvalidArgument) {
  const auto [accepted, refused] = read_mutations(
      R"({"hidden_size": 1024, "text_config": {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}})",
      20000, [](const std::string& text) { attention_shape_from_config(text); });
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 0);
  EXPECT_THROW(attention_shape_from_config(std::string(100000, '[')),
               std::invalid_argument);
  EXPECT_THROW(Routing::from_toml("x = " + std::string(100000, '[')),
               std::invalid_argument);
}

}  // namespace
}  // namespace pion
