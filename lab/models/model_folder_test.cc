// SPDX-License-Identifier: Apache-2.0
#include "lab/models/model_folder.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "lab/files/tensor_file.h"
#include "lab/models/causal_lm_tiny_test.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

class ModelFolder : public testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  std::string text(const std::string& name) const {
    std::ifstream file(folder_ / name);
    std::ostringstream all;
    all << file.rdbuf();
    return all.str();
  }
  // The folder with its tensors changed.
  void change_tensors(const std::function<void(TensorMap&)>& change) const {
    TensorMap tensors = read_tensors(folder_ / "model.safetensors");
    change(tensors);
    fs::remove(folder_ / "model.safetensors");
    write_tensors(folder_ / "model.safetensors", tensors);
  }
  std::string message() const {
    return message_of([&] { load_model_folder(folder_); });
  }

  fs::path folder_ = fs::path(testing::TempDir()) / "pion_model_folder_test";
};

TEST_F(ModelFolder, LoadsWhatItSaves) {
  for (const auto architecture :
       {LmArchitecture::kQwen2, LmArchitecture::kQwen3, LmArchitecture::kLlama})
    for (const bool tied : {false, true})
      for (const char* dtype : {"float32", "bfloat16"}) {
        CausalLmConfig config = tiny_config(architecture);
        config.tie_word_embeddings = tied;
        config.dtype = dtype;
        config.eos_token_ids = {3, 5};
        config.attention_bias = true;
        config.mlp_bias = architecture == LmArchitecture::kLlama;
        const auto model = tiny_model(config);
        save_model_folder(folder_, *model);
        const auto again = load_model_folder(folder_);
        EXPECT_EQ(model_config_json(again->config()), model_config_json(config));
        const auto expected = model->named_parameters();
        const auto found = again->named_parameters();
        ASSERT_EQ(found.size(), expected.size());
        for (const auto& item : expected)
          EXPECT_TRUE(torch::equal(found[item.key()], item.value())) << item.key();
      }
}

TEST_F(ModelFolder, WidensWhatIsStoredNarrowAndTakesTheTypeAskedFor) {
  const auto model = tiny_model(tiny_config());
  save_model_folder(folder_, *model);
  change_tensors([](TensorMap& tensors) {
    for (auto& [name, tensor] : tensors) tensor = tensor.to(torch::kFloat16);
  });
  const auto again = load_model_folder(folder_);
  const torch::Tensor weight = model->named_parameters()["lm_head.weight"];
  EXPECT_TRUE(torch::equal(again->named_parameters()["lm_head.weight"],
                           weight.to(torch::kFloat16).to(torch::kFloat32)));
  EXPECT_EQ(load_model_folder(folder_, "bfloat16")->head_weight().scalar_type(),
            torch::kBFloat16);
  expect_says(message_of([&] { load_model_folder(folder_, "int8"); }),
              "dtype must be float32 or bfloat16, got \"int8\"");
}

// safetensors' save_model keeps one of two tensors that share memory, the first by name.
TEST_F(ModelFolder, TakesEitherTensorOfATiedPair) {
  CausalLmConfig config = tiny_config();
  config.tie_word_embeddings = true;
  const auto model = tiny_model(config);
  save_model_folder(folder_, *model);
  const char *embedding = "model.embed_tokens.weight", *head = "lm_head.weight";
  const torch::Tensor weight = model->named_parameters()[embedding];
  const auto expect_equal = [&] {
    const auto again = load_model_folder(folder_);
    EXPECT_TRUE(torch::equal(again->named_parameters()[embedding], weight));
    EXPECT_TRUE(torch::equal(again->head_weight(), weight));
  };
  change_tensors([&](TensorMap& tensors) { tensors[head] = weight.clone(); });
  expect_equal();
  change_tensors([&](TensorMap& tensors) { tensors.erase(embedding); });
  expect_equal();
  change_tensors([&](TensorMap& tensors) { tensors[embedding] = weight + 1; });
  expect_says(message(),
              "\"lm_head.weight\" must equal \"model.embed_tokens.weight\", since");
  change_tensors([&](TensorMap& tensors) {
    tensors.erase(head);
    tensors.erase(embedding);
  });
  expect_says(message(), "is tie_word_embeddings right in config.json?");
}

TEST_F(ModelFolder, GenerationConfigNamesTheStopTokens) {
  CausalLmConfig config = tiny_config();
  config.eos_token_ids = {1};
  save_model_folder(folder_, *tiny_model(config));
  write("generation_config.json", R"({"eos_token_id": [4, 5], "temperature": 0.7})");
  EXPECT_EQ(load_model_folder(folder_)->config().eos_token_ids,
            (std::vector<std::int64_t>{4, 5}));
  write("generation_config.json", R"({"eos_token_id": 99})");
  expect_says(message(), "generation_config.json: eos_token_id must be");
  write("generation_config.json", "[");
  expect_says(message(), "generation_config.json: must be a JSON object");
  write("generation_config.json", R"({"eos_token_id": )" + std::string(100'000, '['));
  expect_says(message(), "generation_config.json: must be a JSON object");
}

TEST_F(ModelFolder, CopiesTheTokenizer) {
  const fs::path target = folder_ / "saved";
  write("tokenizer.json", "{\"a\": 1}");
  write("vocab.json", "{}");
  write("secret.py", "import os");
  save_model_folder(target, *tiny_model(tiny_config()), folder_);
  EXPECT_TRUE(fs::exists(target / "tokenizer.json"));
  EXPECT_TRUE(fs::exists(target / "vocab.json"));
  EXPECT_FALSE(fs::exists(target / "secret.py"));
  save_model_folder(target, *tiny_model(tiny_config()), target);  // over itself
  EXPECT_EQ(fs::file_size(target / "tokenizer.json"), 8u);
}

TEST_F(ModelFolder, SaysWhatIsWrong) {
  expect_says(message_of([&] { load_model_folder(folder_ / "none"); }),
              "none: must be a model folder, got nothing");
  expect_says(message(), "must hold config.json, got none");
  save_model_folder(folder_, *tiny_model(tiny_config()));
  fs::rename(folder_ / "model.safetensors", folder_ / "away");
  expect_says(message(), "must hold model.safetensors or model.safetensors.index.json");
  write("pytorch_model.bin", "x");
  expect_says(message(), "is a pickle, which can run code and is not read");
  fs::rename(folder_ / "away", folder_ / "model.safetensors");
  EXPECT_EQ(message(), "");

  const std::string name = "model.layers.1.self_attn.k_proj.weight";
  const torch::Tensor weight = read_tensors(folder_ / "model.safetensors").at(name);
  change_tensors([&](TensorMap& tensors) { tensors.erase(name); });
  expect_says(message(), "the weights lack tensor \"" + name + "\"");
  change_tensors([&](TensorMap& tensors) { tensors[name] = weight.t().contiguous(); });
  expect_says(message(), "tensor \"" + name +
                             "\" must have the shape [20, 24] by "
                             "config.json, got [24, 20]");
  change_tensors([&](TensorMap& tensors) { tensors[name] = weight.to(torch::kInt32); });
  expect_says(message(), "must be F32, BF16 or F16, got I32");
  change_tensors([&](TensorMap& tensors) {
    tensors[name] = weight;
    tensors["model.layers.3.mlp.up_proj.weight"] = weight.clone();
  });
  expect_says(message(), "\"model.layers.3.mlp.up_proj.weight\" does not belong");
  fs::resize_file(folder_ / "model.safetensors", 100);
  expect_says(message(), "model.safetensors: ");
  std::string config = text("config.json");
  config.replace(config.find("qwen2"), 5, "bert3");
  write("config.json", config);
  expect_says(message(), "config.json: model_type must be one of llama, qwen2, qwen3");
}

TEST_F(ModelFolder, ReadsShardsThatTheIndexNamesAndNoOtherFile) {
  const auto model = tiny_model(tiny_config());
  save_model_folder(folder_, *model);
  TensorMap first, second = read_tensors(folder_ / "model.safetensors");
  const std::string name = "model.norm.weight";
  first[name] = second.at(name);
  second.erase(name);
  fs::remove(folder_ / "model.safetensors");
  write_tensors(folder_ / "a.safetensors", first);
  write_tensors(folder_ / "b.safetensors", second);
  const auto index = [&](const std::string& file) {
    write("model.safetensors.index.json",
          R"({"weight_map": {"model.norm.weight": "a.safetensors", "x": ")" + file +
              "\"}}");
  };
  index("b.safetensors");
  const auto again = load_model_folder(folder_);
  for (const auto& item : model->named_parameters())
    EXPECT_TRUE(torch::equal(again->named_parameters()[item.key()], item.value()));
  index("c.safetensors");
  expect_says(message(),
              "c.safetensors: is missing, though model.safetensors.index.json");
  index("../b.safetensors");
  expect_says(message(),
              "weight_map must name files of this folder, got \"../b.safetensors\"");
  fs::copy(folder_ / "a.safetensors", folder_ / "c.safetensors");
  index("c.safetensors");
  expect_says(message(), "is in another file of this folder too");
  write("model.safetensors.index.json", "{\"weight_map\": 3}");
  expect_says(message(), "must be a JSON object with weight_map");
  write("model.safetensors.index.json", R"({"weight_map": )" + std::string(100'000, '{'));
  expect_says(message(), "must be a JSON object with weight_map");
}

}  // namespace
}  // namespace pion::lab
