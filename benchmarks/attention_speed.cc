// SPDX-License-Identifier: Apache-2.0
// Question  How much faster than LibTorch's attention is the packed kernel? Half of each
//           sequence is a prompt that its answers share; forward and back.
// Run       build/release/benchmarks/attention_speed [--repetitions N]      one thread
// Pass      faster at every length that the kernel takes, up to 512 keys
// Results   docs/results/speed.md
#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <vector>

#include "lab/models/causal_lm_attention.h"

namespace {

using namespace pion::lab;
using Clock = std::chrono::steady_clock;
using Attention = decltype(&packed_attention);

struct Shape {
  std::int64_t heads, kv_heads, head_dim;
};

TokenPack answers_to_one_prompt(std::int64_t length) {
  const std::vector<std::int64_t> half(static_cast<std::size_t>(length / 2), 1);
  std::vector<PackedSequence> sequences = {{half, -1}};
  sequences.resize(1 + std::max<std::int64_t>(2, 4096 / length), {half, 0});
  return pack_tokens(sequences);
}

struct Inputs {
  TokenPack pack;
  Rotation rotation;
  torch::Tensor q, k, v, gradient;

  Inputs(const Shape& shape, std::int64_t length)
      : pack(answers_to_one_prompt(length)),
        rotation(make_rotation(pack.positions,
                               torch::pow(0.5F, torch::arange(shape.head_dim / 2)),
                               torch::kFloat32)) {
    const std::int64_t tokens = pack.tokens.numel();
    q = torch::randn({tokens, shape.heads, shape.head_dim}).requires_grad_();
    k = torch::randn({tokens, shape.kv_heads, shape.head_dim}).requires_grad_();
    v = torch::randn({tokens, shape.kv_heads, shape.head_dim}).requires_grad_();
    gradient = torch::randn({tokens, shape.heads, shape.head_dim});
  }
};

double seconds(const Inputs& in, Attention attention) {
  const Clock::time_point before = Clock::now();
  attention(in.q, in.k, in.v, in.rotation, in.pack).backward(in.gradient);
  return std::chrono::duration<double>(Clock::now() - before).count();
}

void compare(const Shape& shape, std::int64_t length, int repetitions) {
  const Inputs in(shape, length);
  double kernel = std::numeric_limits<double>::infinity(), libtorch = kernel;
  for (int i = 0; i < repetitions; ++i) {
    kernel = std::min(kernel, seconds(in, &packed_attention));
    libtorch = std::min(libtorch, seconds(in, &packed_attention_definition));
  }
  std::printf(
      "%2d / %d x %3d  %5d tokens  pion %8.2f ms  LibTorch %8.2f ms  ratio %.2f\n",
      static_cast<int>(shape.heads), static_cast<int>(shape.kv_heads),
      static_cast<int>(shape.head_dim), static_cast<int>(length), 1e3 * kernel,
      1e3 * libtorch, libtorch / kernel);
}

}  // namespace

int main(int count, char** words) {
  int repetitions = 20;
  CLI::App app(
      "Times attention over packed sequences, by pion's kernel and by LibTorch's.");
  app.add_option("--repetitions", repetitions)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, count, words);
  at::set_num_threads(1);
  for (const Shape& shape : {Shape{4, 2, 32}, Shape{14, 2, 64}, Shape{16, 8, 128}})
    for (const std::int64_t length : {32, 64, 128, 256, 512})
      compare(shape, length, repetitions);
}
