// SPDX-License-Identifier: Apache-2.0
// Question  How long does a GRPO step's work on a small language model take, sampling and
//           the gradient of the answers' log-probabilities, here and in transformers?
// Run       build/release/benchmarks/generation_speed [--json FILE] [--model FOLDER]
//           [--threads N] [--repetitions N] [--prompts N] [--samples N]
//           [--prompt-tokens N] [--new-tokens N] [--sizes tiny|qwen2.5-0.5b]
//           python benchmarks/generation_speed.py runs both, interleaved
// Results   docs/results/speed.md
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lab/models/generation.h"
#include "lab/models/model_folder.h"

namespace {

using namespace pion::lab;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string json, model, sizes = "tiny";
  int threads = 1, repetitions = 5;
  std::int64_t prompts = 32, samples = 8, prompt_tokens = 16, new_tokens = 48;
  std::int64_t micro_batch = 256;
  bool checkpointing = false;
};

double seconds(const std::function<void()>& call) {
  const Clock::time_point before = Clock::now();
  call();
  return std::chrono::duration<double>(Clock::now() - before).count();
}

CausalLmConfig sizes(const std::string& name) {
  CausalLmConfig config;
  if (name == "tiny") {
    config.vocab_size = 64;
    config.intermediate_size = 384;
    return config;
  }
  if (name != "qwen2.5-0.5b")
    throw std::invalid_argument("--sizes must be tiny or qwen2.5-0.5b, got " + name);
  // huggingface.co/Qwen/Qwen2.5-0.5B, config.json
  return {.vocab_size = 151936,
          .hidden_size = 896,
          .intermediate_size = 4864,
          .num_hidden_layers = 24,
          .num_attention_heads = 14,
          .num_key_value_heads = 2,
          .head_dim = 64,
          .max_position_embeddings = 32768,
          .rope_theta = 1e6,
          .tie_word_embeddings = true,
          .dtype = "bfloat16"};
}

// Every answer has all its tokens: no stop token, so that both sides do the same work.
nlohmann::json measure(CausalLm& model, const Options& options) {
  std::vector<std::vector<std::int64_t>> prompts(options.prompts);
  for (std::size_t i = 0; i < prompts.size(); ++i)
    for (std::int64_t t = 0; t < options.prompt_tokens; ++t)
      prompts[i].push_back((static_cast<std::int64_t>(i) * 7 + t * 3) %
                           model.config().vocab_size);
  const SamplingOptions sampling{.max_new_tokens = options.new_tokens,
                                 .temperature = 1.0};
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(1);
  nlohmann::json result = {{"generate", nlohmann::json::array()},
                           {"logprobs", nlohmann::json::array()},
                           {"gradient", nlohmann::json::array()}};
  for (int i = 0; i < options.repetitions; ++i) {
    Generation made;
    result["generate"].push_back(seconds(
        [&] { made = generate(model, prompts, options.samples, sampling, generator); }));
    const std::int64_t rows = made.tokens.size(0);
    result["logprobs"].push_back(seconds([&] {
      const torch::NoGradGuard no_gradients;
      for (std::int64_t at = 0; at < rows; at += options.micro_batch)
        answer_logprobs(model, made,
                        torch::arange(at, std::min(at + options.micro_batch, rows)), 1.0);
    }));
    model.zero_grad();
    result["gradient"].push_back(seconds([&] {
      for (std::int64_t at = 0; at < rows; at += options.micro_batch)
        answer_logprobs(model, made,
                        torch::arange(at, std::min(at + options.micro_batch, rows)), 1.0)
            .mean()
            .neg()
            .backward();
    }));
  }
  return result;
}

std::int64_t peak_memory_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) / 1024;
  return 0;
}

void run(const Options& options) {
  at::set_num_threads(options.threads);
  const auto model = options.model.empty()
                         ? std::make_shared<CausalLm>(sizes(options.sizes))
                         : load_model_folder(options.model);
  model->set_gradient_checkpointing(options.checkpointing);
  nlohmann::json result = measure(*model, options);
  result["peak_mib"] = peak_memory_mib();
  for (const char* part : {"generate", "logprobs", "gradient"}) {
    const auto times = result[part].get<std::vector<double>>();
    std::printf("%-10s %8.3f s\n", part, *std::min_element(times.begin(), times.end()));
  }
  std::printf("peak memory %ld MiB\n", static_cast<long>(peak_memory_mib()));
  if (!options.json.empty()) std::ofstream(options.json) << result.dump(2) << "\n";
}

}  // namespace

int main(int count, char** words) {
  Options options;
  CLI::App app("Times sampling from a language model and its gradient.");
  app.add_option("--json", options.json);
  app.add_option("--model", options.model);
  app.add_option("--sizes", options.sizes);
  app.add_option("--threads", options.threads);
  app.add_option("--repetitions", options.repetitions);
  app.add_option("--prompts", options.prompts);
  app.add_option("--samples", options.samples);
  app.add_option("--prompt-tokens", options.prompt_tokens);
  app.add_option("--new-tokens", options.new_tokens);
  app.add_option("--micro-batch", options.micro_batch);
  app.add_flag("--checkpointing", options.checkpointing);
  CLI11_PARSE(app, count, words);
  try {
    run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "generation_speed: %s\n", error.what());
    return 1;
  }
}
