// SPDX-License-Identifier: Apache-2.0
// answer_logprobs(): the pack of a micro-batch, and the head on answer positions only.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "lab/models/causal_lm_pack.h"
#include "lab/models/generation.h"

namespace pion::lab {
namespace {

using Tokens = std::vector<std::int64_t>;

// Logits of one chunk of positions: 128 MiB of f32.
constexpr std::int64_t kChunkLogits = 32 << 20;

std::int64_t chunk_rows(std::int64_t vocab) {
  return std::max<std::int64_t>(kChunkLogits / vocab, 1);
}

torch::Tensor chunk_logprobs(const torch::Tensor& h, const torch::Tensor& weight,
                             double temperature) {
  torch::Tensor logits = at::linear(h, weight).to(torch::kFloat32);
  if (temperature != 1) logits.div_(temperature);
  return at::log_softmax(logits, 1);
}

// Log-probabilities of `targets` under softmax(h W^T / T), and the entropies. Above one
// chunk of logits they are computed a second time in the backward pass; below, the
// probabilities are kept.
struct HeadLogprobs : torch::autograd::Function<HeadLogprobs> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const torch::Tensor& h,
                                                const torch::Tensor& weight,
                                                const torch::Tensor& targets,
                                                double temperature, bool with_entropy) {
    const std::int64_t count = h.size(0), rows = chunk_rows(weight.size(0));
    const bool differentiable = h.requires_grad() || weight.requires_grad();
    torch::Tensor chosen = torch::empty({count}, torch::kFloat32);
    torch::Tensor entropy = torch::empty({with_entropy ? count : 0}, torch::kFloat32);
    torch::Tensor kept;
    for (std::int64_t begin = 0; begin < count; begin += rows) {
      const std::int64_t n = std::min(rows, count - begin);
      const torch::Tensor logprobs =
          chunk_logprobs(h.narrow(0, begin, n), weight, temperature);
      const torch::Tensor own = targets.narrow(0, begin, n).unsqueeze(1);
      chosen.narrow(0, begin, n).copy_(logprobs.gather(1, own).squeeze(1));
      const bool keeps = differentiable && count <= rows;
      if (!with_entropy && !keeps) continue;
      const torch::Tensor p = logprobs.exp();
      if (with_entropy) entropy.narrow(0, begin, n).copy_((p * logprobs).sum(1).neg_());
      if (keeps) kept = p;
    }
    context->save_for_backward({h, weight, targets, kept});
    context->saved_data["temperature"] = temperature;
    context->mark_non_differentiable({entropy});
    return {chosen, entropy};
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor &h = saved[0], &weight = saved[1], &targets = saved[2];
    const double temperature = context->saved_data["temperature"].toDouble();
    const std::int64_t count = h.size(0), rows = chunk_rows(weight.size(0));
    const bool needs_h = context->needs_input_grad(0);
    const bool needs_weight = context->needs_input_grad(1);
    torch::Tensor to_h = needs_h ? torch::empty_like(h) : torch::Tensor();
    torch::Tensor to_weight;  // f32: chunks add up
    for (std::int64_t begin = 0; begin < count; begin += rows) {
      const std::int64_t n = std::min(rows, count - begin);
      const torch::Tensor part = h.narrow(0, begin, n);
      // d log p_t / d logit_j = ([j = t] - p_j) / T
      torch::Tensor slope = saved[3].defined()
                                ? saved[3].clone()
                                : chunk_logprobs(part, weight, temperature).exp_();
      const torch::Tensor g =
          (gradients[0].narrow(0, begin, n) / temperature).unsqueeze(1);
      slope.mul_(-g);
      slope.scatter_add_(1, targets.narrow(0, begin, n).unsqueeze(1), g);
      slope = slope.to(h.scalar_type());
      if (needs_h) to_h.narrow(0, begin, n).copy_(at::mm(slope, weight));
      if (!needs_weight) continue;
      const torch::Tensor more = at::mm(slope.t(), part).to(torch::kFloat32);
      to_weight = to_weight.defined() ? to_weight.add_(more) : more;
    }
    if (needs_weight) to_weight = to_weight.to(weight.scalar_type());
    return {to_h, to_weight, {}, {}, {}};
  }
};

// A micro-batch: each answer continues its prompt, and which positions predict what.
struct AnswerPack {
  TokenPack pack;
  torch::Tensor predictors;  // (M) i64 into the pack
  torch::Tensor targets;     // (M) i64
  torch::Tensor places;      // (M) i64 into (rows x T), flattened
};

Tokens to_vector(const torch::Tensor& x) {
  const torch::Tensor plain = x.to(torch::kInt64).contiguous();
  const auto* first = plain.const_data_ptr<std::int64_t>();
  return {first, first + plain.numel()};
}

void check_generation(const Generation& g, const torch::Tensor& rows,
                      double temperature) {
  const auto fail = [](const std::string& what) {
    throw std::invalid_argument("answer_logprobs: " + what);
  };
  if (!(temperature > 0) || !std::isfinite(temperature))
    fail("temperature must be above 0, got " + std::to_string(temperature));
  if (g.tokens.dim() != 2 || g.mask.dim() != 2 || g.starts.dim() != 1 ||
      g.tokens.size(0) != g.mask.size(0) || g.tokens.size(0) != g.starts.size(0) ||
      g.tokens.size(1) != g.prompt_length + g.mask.size(1))
    fail("tokens must be (B, P + T), mask (B, T), starts (B)");
  if (rows.dim() != 1 || rows.numel() == 0) fail("rows must name a row, got none");
  const auto [low, high] = torch::aminmax(rows);
  if (low.item<std::int64_t>() < 0 || high.item<std::int64_t>() >= g.tokens.size(0))
    fail("rows must be in [0, " + std::to_string(g.tokens.size(0)) + ")");
}

AnswerPack pack_answers(const Generation& g, const torch::Tensor& rows) {
  const std::int64_t p = g.prompt_length, t = g.mask.size(1);
  const torch::Tensor tokens = g.tokens.to(torch::kInt64).contiguous();
  const torch::Tensor mask = g.mask.to(torch::kBool).contiguous();
  const Tokens starts = to_vector(g.starts);
  struct Predicted {
    std::size_t prompt, answer;  // sequences
    std::int64_t length;
    const std::int64_t* tokens;
  };
  std::vector<PackedSequence> sequences;
  std::vector<Predicted> predicted;
  std::size_t prompt = 0;
  for (const std::int64_t row : to_vector(rows)) {
    const auto* line = tokens.const_data_ptr<std::int64_t>() + row * (p + t);
    const auto* real = mask.const_data_ptr<bool>() + row * t;
    const std::int64_t length = std::find(real, real + t, false) - real;
    if (std::find(real + length, real + t, true) != real + t)
      throw std::invalid_argument(
          "answer_logprobs: mask must be true, then false, got a "
          "gap in row " +
          std::to_string(row));
    if (starts[row] < 0 || starts[row] >= p)
      throw std::invalid_argument(
          "answer_logprobs: starts must be in [0, " + std::to_string(p) + "), got " +
          std::to_string(starts[row]) + " in row " + std::to_string(row));
    Tokens own(line + starts[row], line + p);
    if (sequences.empty() || sequences[prompt].tokens != own) {
      prompt = sequences.size();
      sequences.push_back({std::move(own), -1});
    }
    predicted.push_back({prompt, sequences.size(), length, line + p});
    // the last token of an answer predicts nothing that counts
    sequences.push_back(
        {Tokens(line + p, line + p + std::max<std::int64_t>(length - 1, 0)),
         static_cast<std::int64_t>(prompt)});
  }
  AnswerPack all;
  all.pack = pack_tokens(sequences);
  Tokens predictors, targets, places;
  for (std::size_t i = 0; i < predicted.size(); ++i) {
    const Predicted& one = predicted[i];
    for (std::int64_t j = 0; j < one.length; ++j) {
      predictors.push_back(j > 0 ? all.pack.begins[one.answer] + j - 1
                                 : all.pack.begins[one.prompt] +
                                       std::ssize(sequences[one.prompt].tokens) - 1);
      targets.push_back(one.tokens[j]);
      places.push_back(static_cast<std::int64_t>(i) * t + j);
    }
  }
  all.predictors = torch::tensor(predictors, torch::kInt64);
  all.targets = torch::tensor(targets, torch::kInt64);
  all.places = torch::tensor(places, torch::kInt64);
  return all;
}

}  // namespace

torch::Tensor answer_logprobs(CausalLm& model, const Generation& generation,
                              const torch::Tensor& rows, double temperature,
                              torch::Tensor* entropy) {
  check_generation(generation, rows, temperature);
  const AnswerPack own = pack_answers(generation, rows);
  const std::int64_t count = rows.numel(), t = generation.mask.size(1);
  if (entropy) *entropy = torch::zeros({count, t});
  if (own.targets.numel() == 0) return torch::zeros({count, t});
  const torch::Tensor h = model.hidden(own.pack).index_select(0, own.predictors);
  const auto found = HeadLogprobs::apply(h, model.head_weight(), own.targets, temperature,
                                         entropy != nullptr);
  const auto spread = [&](const torch::Tensor& values) {
    return torch::zeros({count * t}).index_copy(0, own.places, values).view({count, t});
  };
  if (entropy) *entropy = spread(found[1].detach());
  return spread(found[0]);
}

}  // namespace pion::lab
