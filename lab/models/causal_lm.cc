// SPDX-License-Identifier: Apache-2.0
#include "lab/models/causal_lm.h"

#include <stdexcept>
#include <string>

#include "lab/models/causal_lm_checkpoint.h"
#include "lab/models/causal_lm_layer.h"
#include "lab/models/causal_lm_pack.h"

namespace pion::lab {
namespace {

void check_tokens(const TokenPack& pack, const CausalLmConfig& config) {
  if (pack.tokens.numel() == 0)
    throw std::invalid_argument("CausalLm: there must be a token, got none");
  const auto [low, high] = torch::aminmax(pack.tokens);
  for (const std::int64_t token : {low.item<std::int64_t>(), high.item<std::int64_t>()})
    if (token < 0 || token >= config.vocab_size)
      throw std::invalid_argument("CausalLm: tokens must be in [0, " +
                                  std::to_string(config.vocab_size) + "), got " +
                                  std::to_string(token));
  const auto last = pack.positions.max().item<std::int64_t>();
  if (last >= config.max_position_embeddings)
    throw std::invalid_argument("CausalLm: a sequence must have at most " +
                                std::to_string(config.max_position_embeddings) +
                                " tokens, the model's max_position_embeddings, got " +
                                std::to_string(last + 1));
}

void draw_weights(torch::nn::Module& module, double deviation) {
  const torch::NoGradGuard no_gradients;
  for (const auto& item : module.named_parameters()) {
    torch::Tensor weight = item.value();
    if (weight.dim() > 1)
      weight.normal_(0.0, deviation);
    else
      weight.fill_(item.key().ends_with("bias") ? 0.0 : 1.0);
  }
}

}  // namespace

CausalLm::CausalLm(const CausalLmConfig& config, bool draw)
    : torch::nn::Module("CausalLm"), config_(config) {
  check_model_config(config, "CausalLm");
  const torch::ScalarType dtype = weight_type(config);
  stack_ = register_module("model", std::make_shared<DecoderStack>(config, dtype));
  if (!config.tie_word_embeddings)
    untied_head_ = register_module("lm_head", std::make_shared<Linear>(
                                                  config.hidden_size, config.vocab_size,
                                                  /*with_bias=*/false, dtype))
                       ->weight;
  if (draw) draw_weights(*this, config.initializer_range);
}

CausalLm::~CausalLm() = default;

torch::Tensor CausalLm::head_weight() const {
  return untied_head_.defined() ? untied_head_ : stack_->embed_tokens->weight;
}

torch::Tensor CausalLm::logits(const torch::Tensor& hidden) const {
  return at::linear(hidden, head_weight()).to(torch::kFloat32);
}

torch::Tensor CausalLm::hidden(const TokenPack& pack) {
  check_tokens(pack, config_);
  const Rotation rotation =
      make_rotation(pack.positions, stack_->inverse_frequencies, weight_type(config_));
  torch::Tensor x = torch::embedding(stack_->embed_tokens->weight, pack.tokens);
  for (const auto& layer : stack_->layers) {
    if (checkpointing_ && torch::GradMode::is_enabled()) {
      // by value: the graph may outlive this call
      x = checkpointed(x, layer->parameters(),
                       [layer, pack, rotation](const torch::Tensor& input) {
                         return layer->forward(input, pack, rotation);
                       });
    } else {
      x = layer->forward(x, pack, rotation);
    }
  }
  return stack_->norm->forward(x);
}

torch::Tensor CausalLm::hidden(const torch::Tensor& tokens, const torch::Tensor& starts) {
  const std::int64_t batch = tokens.size(0), length = tokens.size(1);
  const torch::Tensor plain = tokens.to(torch::kInt64).contiguous();
  std::vector<PackedSequence> sequences(batch);
  for (std::int64_t row = 0; row < batch; ++row) {
    const auto start = starts[row].item<std::int64_t>();
    if (start < 0 || start >= length)
      throw std::invalid_argument(
          "CausalLm::hidden: starts must be in [0, " + std::to_string(length) +
          "), got " + std::to_string(start) + " in row " + std::to_string(row));
    const auto* first = plain.const_data_ptr<std::int64_t>() + row * length;
    sequences[row].tokens.assign(first + start, first + length);
  }
  const torch::Tensor real =
      torch::arange(length) >= starts.to(torch::kInt64).unsqueeze(1);
  const torch::Tensor packed = hidden(pack_tokens(sequences));
  // rows are in order and padding is on the left, so the pack fills `real` in order
  const torch::Tensor places = real.flatten().nonzero().squeeze(1);
  return torch::zeros({batch * length, packed.size(1)}, packed.options())
      .index_copy(0, places, packed)
      .view({batch, length, -1});
}

}  // namespace pion::lab
