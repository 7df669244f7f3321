// SPDX-License-Identifier: Apache-2.0
#include "lab/models/generation_decoder.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "lab/models/causal_lm_layer.h"

namespace pion::lab {
namespace {

using Prompts = std::vector<std::vector<std::int64_t>>;

constexpr std::int64_t kPrefillTokens = 2048;  // at a time: bounds what a layer holds

std::int64_t longest(const Prompts& prompts) {
  std::size_t most = 0;
  for (const auto& prompt : prompts) most = std::max(most, prompt.size());
  return static_cast<std::int64_t>(most);
}

DecodeShape decode_shape(const CausalLmConfig& config) {
  return {static_cast<std::size_t>(config.num_attention_heads),
          static_cast<std::size_t>(config.num_key_value_heads),
          static_cast<std::size_t>(config.head_dim)};
}

torch::Tensor joined(const std::vector<torch::Tensor>& parts) {
  return parts[0].defined() ? torch::cat(parts).detach() : torch::Tensor();
}

torch::Tensor wide(const torch::Tensor& x) {
  return x.defined() ? x.detach().to(torch::kFloat32).contiguous() : torch::Tensor();
}

const float* data(const torch::Tensor& x) {
  return x.defined() ? x.const_data_ptr<float>() : nullptr;
}

bool is_finite(const torch::Tensor& x) { return torch::isfinite(x).all().item<bool>(); }

}  // namespace

LmDecoder::LmDecoder(const CausalLm& model, const Prompts& prompts, std::int64_t samples,
                     std::int64_t answer_capacity)
    : config_(model.config()),
      bf16_(weight_type(config_) == torch::kBFloat16),
      shape_(decode_shape(config_)),
      kernels_(decode_kernels()),
      samples_(samples),
      prompts_(prompts),
      prompt_cache_(config_.num_hidden_layers, shape_, std::ssize(prompts),
                    longest(prompts)),
      answer_cache_(config_.num_hidden_layers, shape_, std::ssize(prompts) * samples,
                    answer_capacity) {
  const torch::NoGradGuard no_gradients;
  pack_weights(model);
  const Rotation rotation =
      make_rotation(torch::arange(longest(prompts) + answer_capacity),
                    model.stack().inverse_frequencies, weight_type(config_));
  const auto half = [&](const torch::Tensor& x) {
    return wide(x.squeeze(1).narrow(1, 0, config_.head_dim / 2));
  };
  cosine_ = half(rotation.cosine);
  sine_ = half(rotation.sine);
}

void LmDecoder::pack_weights(const CausalLm& model) {
  const DecoderStack& stack = model.stack();
  embedding_ = stack.embed_tokens->weight.detach();
  head_ = model.head_weight().detach();
  final_gain_ = wide(stack.norm->weight);
  for (const auto& layer : stack.layers) {
    const CausalAttention& a = *layer->self_attn;
    const GatedMlp& m = *layer->mlp;
    layers_.push_back({
        .qkv = joined({a.q_proj->weight, a.k_proj->weight, a.v_proj->weight}),
        .qkv_bias = joined({a.q_proj->bias, a.k_proj->bias, a.v_proj->bias}),
        .output = a.o_proj->weight.detach(),
        .output_bias =
            a.o_proj->bias.defined() ? a.o_proj->bias.detach() : torch::Tensor(),
        .gate_up = joined({m.gate_proj->weight, m.up_proj->weight}),
        .gate_up_bias = joined({m.gate_proj->bias, m.up_proj->bias}),
        .down = m.down_proj->weight.detach(),
        .down_bias =
            m.down_proj->bias.defined() ? m.down_proj->bias.detach() : torch::Tensor(),
        .input_gain = wide(layer->input_layernorm->weight),
        .middle_gain = wide(layer->post_attention_layernorm->weight),
        .q_gain = a.q_norm ? wide(a.q_norm->weight) : torch::Tensor(),
        .k_gain = a.k_norm ? wide(a.k_norm->weight) : torch::Tensor(),
    });
  }
}

torch::Tensor LmDecoder::prefill() {
  const torch::NoGradGuard no_gradients;
  std::vector<NewToken> tokens;
  std::vector<std::int64_t> last;  // of each prompt, in the order of `tokens`
  for (std::int64_t prompt = 0; prompt < std::ssize(prompts_); ++prompt) {
    for (std::int64_t slot = 0; slot < std::ssize(prompts_[prompt]); ++slot)
      tokens.push_back({prompts_[prompt][slot], prompt, -1, slot});
    last.push_back(std::ssize(tokens) - 1);
  }
  std::vector<torch::Tensor> ends;
  auto next = last.begin();
  for (std::int64_t begin = 0; begin < std::ssize(tokens); begin += kPrefillTokens) {
    const std::int64_t end = std::min(begin + kPrefillTokens, std::ssize(tokens));
    latest_.assign(tokens.begin() + begin, tokens.begin() + end);
    const torch::Tensor x = run(latest_, nullptr);
    for (; next != last.end() && *next < end; ++next) ends.push_back(x[*next - begin]);
  }
  const torch::Tensor logits = multiply(torch::stack(ends), head_, {});
  latest_ = std::move(tokens);  // if a value was not finite, any of them may have it
  return logits;
}

torch::Tensor LmDecoder::step(const std::vector<std::int64_t>& rows,
                              const std::vector<std::int64_t>& tokens,
                              std::int64_t step) {
  const torch::NoGradGuard no_gradients;
  latest_.clear();
  for (std::size_t i = 0; i < rows.size(); ++i)
    latest_.push_back({tokens[i], rows[i] / samples_, rows[i], step});
  return multiply(run(latest_, nullptr), head_, {});
}

torch::Tensor LmDecoder::multiply(const torch::Tensor& x, const torch::Tensor& weight,
                                  const torch::Tensor& bias) const {
  if (bf16_)
    return at::linear(x.to(torch::kBFloat16), weight,
                      bias.defined() ? std::optional(bias) : std::nullopt)
        .to(torch::kFloat32);
  return bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
}

void LmDecoder::norm_rows(torch::Tensor& x, const torch::Tensor& delta,
                          const torch::Tensor& gain, torch::Tensor& out) const {
  float* to = x.mutable_data_ptr<float>();
  float* result = out.mutable_data_ptr<float>();
  const float* added = data(delta);
  const std::int64_t width = x.size(1);
  at::parallel_for(0, x.size(0), 64, [&](std::int64_t begin, std::int64_t end) {
    kernels_.add_rms_norm(to + begin * width, added ? added + begin * width : nullptr,
                          gain.const_data_ptr<float>(),
                          static_cast<float>(config_.rms_norm_eps), end - begin, width,
                          bf16_, result + begin * width);
  });
}

void LmDecoder::gate_rows(const torch::Tensor& gate_up, torch::Tensor& out) const {
  const std::int64_t width = config_.intermediate_size;
  const float* from = gate_up.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  at::parallel_for(0, gate_up.size(0), 16, [&](std::int64_t begin, std::int64_t end) {
    kernels_.gate(from + begin * 2 * width, end - begin, width, bf16_,
                  to + begin * width);
  });
}

void LmDecoder::place_all(const std::vector<NewToken>& tokens, std::int64_t layer,
                          float* qkv) {
  const std::size_t width = (shape_.heads + 2 * shape_.kv_heads) * shape_.head_dim;
  const std::int64_t half = config_.head_dim / 2;
  const LayerWeights& weights = layers_[layer];
  at::parallel_for(0, std::ssize(tokens), 32, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const NewToken& one = tokens[i];
      const bool in_prompt = one.answer < 0;
      const std::int64_t position =
          one.slot + (in_prompt ? 0 : std::ssize(prompts_[one.prompt]));
      const QueryKeyWork work{data(weights.q_gain), data(weights.k_gain),
                              static_cast<float>(config_.rms_norm_eps),
                              data(cosine_) + position * half,
                              data(sine_) + position * half};
      kernels_.place(shape_, work, qkv + i * width, bf16_,
                     in_prompt ? prompt_cache_.view(layer, one.prompt)
                               : answer_cache_.view(layer, one.answer),
                     one.slot);
    }
  });
}

void LmDecoder::attend_all(const std::vector<NewToken>& tokens, std::int64_t layer,
                           const float* qkv, float* out) {
  const std::size_t q_width = shape_.heads * shape_.head_dim;
  const std::size_t width = q_width + 2 * shape_.kv_heads * shape_.head_dim;
  at::parallel_for(0, std::ssize(tokens), 4, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch;
    for (std::int64_t i = begin; i < end; ++i) {
      const NewToken& one = tokens[i];
      KvSegment segments[2];
      std::size_t count = 0, keys = 0;
      const auto add = [&](KvView cache, std::int64_t tokens_in) {
        segments[count++] = {cache, static_cast<std::size_t>(tokens_in)};
        keys += tokens_in + kDecodeLanes;  // at most, rounded up
      };
      const bool in_prompt = one.answer < 0;
      add(prompt_cache_.view(layer, one.prompt),
          in_prompt ? one.slot + 1 : std::ssize(prompts_[one.prompt]));
      if (!in_prompt) add(answer_cache_.view(layer, one.answer), one.slot + 1);
      const std::size_t needed = keys * (shape_.heads / shape_.kv_heads);
      if (scratch.size() < needed) scratch.resize(needed);
      kernels_.attend(shape_, qkv + i * width, segments, count, bf16_, scratch.data(),
                      out + i * q_width);
    }
  });
}

// Returns the hidden states after the last norm.
torch::Tensor LmDecoder::run(const std::vector<NewToken>& tokens,
                             std::string* nonfinite) {
  std::vector<std::int64_t> ids;
  for (const NewToken& one : tokens) ids.push_back(one.token);
  torch::Tensor x =
      embedding_.index_select(0, torch::tensor(ids, torch::kInt64)).to(torch::kFloat32);
  const std::int64_t count = x.size(0);
  torch::Tensor normed = torch::empty_like(x);
  torch::Tensor mixed =
      torch::empty({count, config_.num_attention_heads * config_.head_dim}, x.options());
  torch::Tensor gated = torch::empty({count, config_.intermediate_size}, x.options());
  torch::Tensor delta;  // what the residual stream still lacks
  const auto watch = [&](const torch::Tensor& values, const std::string& place) {
    if (nonfinite && nonfinite->empty() && !is_finite(values)) *nonfinite = place;
  };
  watch(x, "the embedding");
  for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    const LayerWeights& layer = layers_[i];
    const std::string name = "layer " + std::to_string(i);
    norm_rows(x, delta, layer.input_gain, normed);
    torch::Tensor qkv = multiply(normed, layer.qkv, layer.qkv_bias);
    place_all(tokens, i, qkv.mutable_data_ptr<float>());
    attend_all(tokens, i, qkv.const_data_ptr<float>(), mixed.mutable_data_ptr<float>());
    delta = multiply(mixed, layer.output, layer.output_bias);
    watch(delta, name + ", attention");
    norm_rows(x, delta, layer.middle_gain, normed);
    gate_rows(multiply(normed, layer.gate_up, layer.gate_up_bias), gated);
    delta = multiply(gated, layer.down, layer.down_bias);
    watch(delta, name + ", MLP");
    watch(x, name + ", residual stream");
  }
  norm_rows(x, delta, final_gain_, normed);
  watch(normed, "the last norm");
  return normed;
}

std::string LmDecoder::find_nonfinite() {
  const torch::NoGradGuard no_gradients;
  // the same tokens again: they overwrite the cache with what it holds
  std::string place;
  for (std::int64_t begin = 0; begin < std::ssize(latest_) && place.empty();
       begin += kPrefillTokens) {
    const std::int64_t end = std::min(begin + kPrefillTokens, std::ssize(latest_));
    run({latest_.begin() + begin, latest_.begin() + end}, &place);
  }
  return place.empty() ? "the head" : place;
}

}  // namespace pion::lab
