// SPDX-License-Identifier: Apache-2.0
#include "lab/models/causal_lm_config.h"

#include <gtest/gtest.h>

#include <random>
#include <stdexcept>
#include <string>

#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

const std::string kQwen = R"({"model_type": "qwen2", "vocab_size": 10, "hidden_size": 8,
  "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 4,
  "num_key_value_heads": 2, "max_position_embeddings": 64, "rope_theta": 5000.0,
  "eos_token_id": [3, 4], "torch_dtype": "bfloat16", "sliding_window": 4096,
  "use_sliding_window": false})";

std::string with(const std::string& old_text, const std::string& text) {
  std::string json = kQwen;
  const std::size_t at = json.find(old_text);
  EXPECT_NE(at, std::string::npos) << old_text;
  return json.replace(at, old_text.size(), text);
}

TEST(ModelConfig, ReadsWhatTheFileSays) {
  const CausalLmConfig config = parse_model_config(kQwen, "config.json");
  EXPECT_EQ(config.architecture, LmArchitecture::kQwen2);
  EXPECT_EQ(config.head_dim, 2);  // hidden_size / num_attention_heads
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_TRUE(config.attention_bias);
  EXPECT_FALSE(config.output_bias());
  EXPECT_EQ(config.rope_theta, 5000.0);
  EXPECT_EQ(config.dtype, "bfloat16");
  EXPECT_EQ(config.eos_token_ids, (std::vector<std::int64_t>{3, 4}));
  EXPECT_FALSE(config.pad_token_id);
}

TEST(ModelConfig, Qwen3HasHeadsOf128UnlessItSaysOtherwise) {
  const CausalLmConfig config = parse_model_config(with("qwen2", "qwen3"), "c");
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_FALSE(config.attention_bias);
}

TEST(ModelConfig, ReadsBothGenerationsOfRopeKeys) {
  const std::string scaling =
      R"("factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 32)";
  const CausalLmConfig old_keys =
      parse_model_config(with("\"rope_theta\": 5000.0",
                              "\"rope_theta\": 7.0, \"rope_scaling\": {\"type\": "
                              "\"llama3\", " +
                                  scaling + "}"),
                         "c");
  const CausalLmConfig new_keys =
      parse_model_config(with("\"rope_theta\": 5000.0",
                              "\"rope_parameters\": {\"rope_theta\": 7.0, "
                              "\"rope_type\": \"llama3\", " +
                                  scaling + "}"),
                         "c");
  for (const CausalLmConfig& config : {old_keys, new_keys}) {
    EXPECT_EQ(config.rope_theta, 7.0);
    ASSERT_TRUE(config.rope_scaling);
    EXPECT_EQ(config.rope_scaling->factor, 8.0);
    EXPECT_EQ(config.rope_scaling->original_max_position_embeddings, 32);
  }
}

// As transformers 5 writes models whose layers differ; here all attend to everything.
TEST(ModelConfig, ReadsRopeKeysByKindsOfLayers) {
  const CausalLmConfig config =
      parse_model_config(with("\"rope_theta\": 5000.0",
                              R"("layer_types": ["full_attention"], "rope_parameters": {
             "sliding_attention": {"rope_theta": 3.0, "rope_type": "default"},
             "full_attention": {"rope_theta": 7.0, "rope_type": "llama3", "factor": 8.0,
               "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "partial_rotary_factor": 1.0}})"),
                         "c");
  EXPECT_EQ(config.rope_theta, 7.0);
  ASSERT_TRUE(config.rope_scaling);
  EXPECT_EQ(config.rope_scaling->factor, 8.0);
  // absent: the model's own context
  EXPECT_EQ(config.rope_scaling->original_max_position_embeddings, 64);
}

TEST(ModelConfig, TakesRopeScalingBeforeRopeParameters) {
  const CausalLmConfig config =
      parse_model_config(with("5000.0",
                              R"(5000.0, "rope_parameters": {"rope_theta": 7.0},
              "rope_scaling": {"type": "default", "rope_theta": 9.0})"),
                         "c");
  EXPECT_EQ(config.rope_theta, 9.0);
}

TEST(ModelConfig, TakesForeignKeysThatChangeNothing) {
  const CausalLmConfig config = parse_model_config(
      with("5000.0", R"(5000.0, "use_mrope": false, "is_causal": true, "logit_scale": 1,
                        "final_logit_softcapping": null, "qk_norm": false,
                        "hidden_act": "swish", "rope_scaling": {})"),
      "c");
  EXPECT_EQ(config.rope_theta, 5000.0);
}

TEST(ModelConfig, WritesWhatItReads) {
  CausalLmConfig config = parse_model_config(with("qwen2", "llama"), "c");
  config.rope_scaling = Llama3Rope{.factor = 3.0};
  config.attention_bias = config.mlp_bias = true;
  config.bos_token_id = 1;
  const std::string text = model_config_json(config);
  EXPECT_EQ(model_config_json(parse_model_config(text, "again")), text);
}

TEST(ModelConfig, RefusesWithTheKeyAndTheRemedy) {
  struct Case {
    std::string json, expected;
  };
  const Case cases[] = {
      {"{", "dir/config.json: must be JSON: "},
      {"[]", "must be a JSON object, got array"},
      {std::string(100'000, '['), "dir/config.json: must nest at most 100 levels deep"},
      {with("5000.0", "5000.0, \"x\": " + std::string(100'000, '[')), "100 levels"},
      {with("qwen2", "gpt2"),
       "model_type must be one of llama, qwen2, qwen3, got \"gpt2\""},
      {with("\"vocab_size\": 10,", ""), "vocab_size must be an integer in [1, "},
      {with("\"vocab_size\": 10", "\"vocab_size\": -1"), "got -1"},
      {with("\"vocab_size\": 10", "\"vocab_size\": 1e3"),
       "vocab_size must be an integer"},
      {with("\"vocab_size\": 10", "\"vocab_size\": 18446744073709551615"), "vocab_size"},
      {with("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"),
       "num_key_value_heads must divide num_attention_heads, 4, got 3"},
      {with("\"num_attention_heads\": 4", "\"num_attention_heads\": 3"),
       "num_attention_heads must divide hidden_size, 8"},
      {with("\"num_attention_heads\": 4", "\"num_attention_heads\": 8"),
       "head_dim must be even, got 1"},
      {with("\"use_sliding_window\": false", "\"use_sliding_window\": true"),
       "sliding windows are not supported"},
      {with("5000.0", "5000.0, \"rope_scaling\": {\"rope_type\": \"yarn\"}"),
       "must be of type default or llama3, got \"yarn\""},
      {with("5000.0", "5000.0, \"rope_scaling\": {\"rope_type\": \"llama3\"}"),
       "rope_scaling: factor must be a positive number, got nothing"},
      {with("5000.0", "5.0, \"rope_parameters\": {\"partial_rotary_factor\": 0.5}"),
       "rope_parameters: partial_rotary_factor must be 1: rotary positions of a part are "
       "not supported, got 0.5"},
      {with("5000.0", "5.0, \"rope_parameters\": {\"mrope_section\": [16, 24, 24]}"),
       "rope_parameters: mrope_section must be absent: it is not supported, got "
       "[16,24,24]"},
      {with("5000.0", "5.0, \"rope_parameters\": {\"sliding_attention\": {}}"),
       "rope_parameters: must have \"full_attention\""},
      {with("5000.0", R"(5.0, "rope_parameters": {"full_attention": {}, "factor": 2})"),
       "rope_parameters: factor must be in \"full_attention\""},
      {with("5000.0", R"(5.0, "rope_parameters": {"full_attention":
                         {"partial_rotary_factor": 0.25}})"),
       "partial_rotary_factor must be 1"},
      {with("5000.0", "5.0, \"final_logit_softcapping\": 30.0"),
       "final_logit_softcapping must be absent: the model has no place for another "
       "value, got 30.0"},
      {with("5000.0", "5.0, \"logit_scale\": 0.0625"), "logit_scale must be 1.0"},
      {with("5000.0", "5.0, \"is_causal\": false"), "is_causal must be true"},
      {with("5000.0", "5.0, \"use_qk_norm\": true"), "use_qk_norm must be false"},
      {with("5000.0", "0"), "rope_theta must be a positive number, got 0"},
      {with("bfloat16", "int8"), "dtype must be float32 or bfloat16, got \"int8\""},
      {with("[3, 4]", "[3, 10]"), "eos_token_id must be tokens in [0, 9], got [3,10]"},
      {with("[3, 4]", "3, \"hidden_act\": \"gelu\""), "hidden_act must be \"silu\""},
      {with("[3, 4]", "3, \"quantization_config\": {}"), "quantized weights"},
      {with("[3, 4]", "3, \"layer_types\": [\"sliding_attention\"]"), "layer_types"},
  };
  for (const Case& one : cases)
    expect_says(message_of([&] { parse_model_config(one.json, "dir/config.json"); }),
                one.expected);
}

// Under the sanitizers this finds reads that bytes can lead astray; what is accepted must
// be a config that can be written and read again.
TEST(ModelConfig, SurvivesMutatedFiles) {
  std::mt19937 random(1);
  const std::string pieces[] = {"null", "-1",    "[]",    "{}",
                                "\"\"", "1e400", "true",  "NaN",
                                "\xff", "[[[[{", "\\u00", "99999999999999999999"};
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string json = kQwen;
    for (std::uint32_t edits = random() % 4 + 1; edits > 0 && !json.empty(); --edits) {
      const std::size_t at = random() % json.size();
      switch (random() % 4) {
        case 0:
          json[at] = static_cast<char>(random());
          break;
        case 1:
          json.erase(at, random() % 8 + 1);
          break;
        case 2:
          json.insert(at, pieces[random() % std::size(pieces)]);
          break;
        default:
          json.resize(at);
      }
    }
    try {
      const CausalLmConfig config = parse_model_config(json, "mutated");
      const std::string text = model_config_json(config);
      EXPECT_EQ(model_config_json(parse_model_config(text, "again")), text) << json;
      ++accepted;
    } catch (const std::invalid_argument&) {
    }
  }
  EXPECT_GT(accepted, 100);  // some edits hit text that does not matter
}

}  // namespace
}  // namespace pion::lab
