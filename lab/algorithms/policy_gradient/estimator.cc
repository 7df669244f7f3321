// SPDX-License-Identifier: Apache-2.0
#include "lab/algorithms/policy_gradient/estimator.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "lab/algorithms/policy_gradient/advantage.h"
#include "lab/algorithms/policy_gradient/aggregate.h"
#include "lab/algorithms/policy_gradient/kl.h"
#include "lab/algorithms/policy_gradient/require.h"
#include "lab/algorithms/policy_gradient/reweigh.h"
#include "lab/algorithms/policy_gradient/rollout_check.h"
#include "lab/algorithms/policy_gradient/token_loss.h"

namespace pion::lab {
namespace {

using torch::Tensor;

bool kl_in_loss(const EstimatorOptions& o) {
  return o.kl == KlKind::kK2 || o.kl == KlKind::kK3;
}

// Rows with a token whose advantage is not 0, or that a KL term pulls: at pi = pi_ref its
// gradient is exactly 0.
Tensor signal_of(const PreparedBatch& batch, const Rollout& rollout,
                 const EstimatorOptions& o) {
  Tensor moved = batch.advantage != 0;
  if (moved.dim() == 1) moved = moved.unsqueeze(1);
  if (kl_in_loss(o)) moved = moved | (rollout.logp_old != rollout.logp_ref);
  return (batch.mask & moved).any(1);
}

// The rows of every field, with 0 where the mask is false: padding may hold anything, and
// 0 * NaN is NaN in a gradient.
Tensor rows_of(const Tensor& x, const Tensor& rows, const Tensor& mask) {
  if (!x.defined()) return {};
  const Tensor y = x.index_select(0, rows);
  return torch::where(mask, y, torch::zeros_like(y));
}

void check_rows(const Tensor& logp_new, const PreparedBatch& batch, const Tensor& rows,
                const Tensor& minibatch) {
  constexpr const char* kLoss = "Estimator::loss: ";
  for (const auto& [name, x] : {std::pair{"rows", rows}, {"minibatch", minibatch}})
    require(x.defined() && x.dim() == 1 && x.scalar_type() == torch::kInt64, kLoss, name,
            " must be one-dimensional i64");
  require(minibatch.size(0) > 0, kLoss, "minibatch must hold a row, got none");
  require(torch::isin(rows, minibatch).all().item<bool>(), kLoss,
          "rows must be among those of minibatch, got others");
  require(logp_new.dim() == 2 && logp_new.size(0) == rows.size(0) &&
              logp_new.size(1) == batch.mask.size(1),
          kLoss, "logp_new must have shape [", rows.size(0), ", ", batch.mask.size(1),
          "], got ", logp_new.sizes());
  require(logp_new.scalar_type() == batch.weight.scalar_type(), kLoss,
          "logp_new must have the dtype of logp_old, ", batch.weight.scalar_type(),
          ", got ", logp_new.scalar_type());
}

// Named sums, brought to the host in one copy.
class Sums {
 public:
  void add(const char* name, const Tensor& value) {
    names_.push_back(name);
    values_.push_back(value.detach().to(torch::kFloat64).sum());
  }
  void into(Metrics& sums) const {
    const Tensor values = torch::stack(values_).cpu();
    for (std::size_t i = 0; i < names_.size(); ++i)
      sums[names_[i]] += values.data_ptr<double>()[i];
  }

 private:
  std::vector<const char*> names_;
  std::vector<Tensor> values_;
};

void add_metrics(const TokenInputs& in, const TokenLoss& loss, const Tensor& logp_ref,
                 Sums& sums) {
  const Tensor zero = torch::zeros_like(in.logp_old);
  const Tensor logp = in.logp_new.detach(), l = logp - in.logp_old;
  sums.add("tokens", in.mask);
  sums.add("clip_fraction_low", loss.clipped_low);
  sums.add("clip_fraction_high", loss.clipped_high);
  sums.add("clip_fraction_dual", loss.clipped_dual);
  sums.add("ratio",
           torch::where(in.mask, l.clamp(-kLogRatioLimit, kLogRatioLimit).exp(), zero));
  sums.add("k3_old", k3(l));  // 0 off the mask: both log-probabilities are 0 there
  if (in.logp_rollout.defined()) sums.add("k3_rollout", k3(logp - in.logp_rollout));
  if (logp_ref.defined()) sums.add("k3_ref", k3(logp_ref - logp));
}

}  // namespace

Estimator::Estimator(const EstimatorOptions& options) : options_(options) {
  check_estimator(options);
  if (options_.kl_coefficient == 0)
    options_.kl = KlKind::kNone;  // 0 of it needs no reference
}

PreparedBatch Estimator::prepare(const Rollout& rollout) {
  torch::NoGradGuard no_grad;
  check_rollout(rollout, options_);
  Advantages a = advantages(rollout, options_, baseline_);
  Reweighed r = reweigh(rollout, options_);
  PreparedBatch batch{a.value.to(rollout.logp_old.options()),
                      r.mask,
                      r.weight,
                      {},
                      false,
                      std::move(a.metrics)};
  batch.metrics.merge(r.metrics);
  batch.signal = signal_of(batch, rollout, options_);
  batch.no_signal = !batch.signal.any().item<bool>();
  baseline_ = a.next_baseline;
  return batch;
}

Tensor Estimator::loss(const Tensor& logp_new, const Rollout& rollout,
                       const PreparedBatch& batch, const Tensor& rows,
                       const Tensor& minibatch, Metrics& metrics) const {
  check_rows(logp_new, batch, rows, minibatch);
  const Tensor mask = batch.mask.index_select(0, rows);
  check_finite("Estimator::loss", "logp_new", logp_new.detach(), mask, rows);
  Tensor advantage = batch.advantage.index_select(0, rows);
  if (advantage.dim() == 1) advantage = advantage.unsqueeze(1);
  const TokenInputs inputs{
      .logp_new = torch::where(mask, logp_new, torch::zeros_like(logp_new)),
      .logp_old = rows_of(rollout.logp_old, rows, mask),
      .logp_rollout = rows_of(rollout.logp_rollout, rows, mask),
      .advantage = advantage,
      .weight = batch.weight.index_select(0, rows),
      .mask = mask};
  const Tensor logp_ref = rows_of(rollout.logp_ref, rows, mask);
  const Denominator denominator = denominator_of(batch.mask.index_select(0, minibatch));
  const TokenLoss tokens = token_loss(inputs, options_);
  Sums sums;
  Tensor loss = options_.loss == LossKind::kGmpo
                    ? aggregate_sequences(tokens.value, mask, denominator)
                    : aggregate(tokens.value, mask, options_.aggregation, denominator,
                                options_.length_constant);
  sums.add("policy_loss", loss);
  if (kl_in_loss(options_)) {
    const Tensor d = logp_ref - inputs.logp_new;
    const Tensor kl =
        options_.kl_coefficient * aggregate(options_.kl == KlKind::kK2 ? k2(d) : k3(d),
                                            mask, options_.aggregation, denominator,
                                            options_.length_constant);
    sums.add("kl_loss", kl);
    loss = loss + kl;
  }
  add_metrics(inputs, tokens, logp_ref, sums);
  sums.into(metrics);
  metrics["steps"] +=
      static_cast<double>(rows.size(0)) / static_cast<double>(minibatch.size(0));
  return loss;
}

Metrics estimator_metrics(const Metrics& sums) {
  const auto count = [&](const char* name) {
    const auto at = sums.find(name);
    return at == sums.end() || at->second == 0 ? 1.0 : at->second;
  };
  const double tokens = count("tokens"), steps = count("steps");
  Metrics means;
  for (const auto& [name, sum] : sums) {
    if (name == "tokens" || name == "steps") continue;
    means[name] = sum / (name == "policy_loss" || name == "kl_loss" ? steps : tokens);
  }
  return means;
}

}  // namespace pion::lab
