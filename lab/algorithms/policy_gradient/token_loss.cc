// SPDX-License-Identifier: Apache-2.0
#include "lab/algorithms/policy_gradient/token_loss.h"

#include "lab/algorithms/policy_gradient/kl.h"

namespace pion::lab {
namespace {

using torch::Tensor;

// A ratio that moved out of the trust region in the direction the advantage wants.
void mark_clipped(TokenLoss& loss, const Tensor& ratio, const TokenInputs& in, double low,
                  double high) {
  loss.clipped_low = in.mask & (in.advantage < 0) & (ratio < low);
  loss.clipped_high = in.mask & (in.advantage > 0) & (ratio > high);
  loss.clipped_dual = torch::zeros_like(loss.clipped_low);
}

Tensor ratio_of(const TokenInputs& in) {
  return (in.logp_new - in.logp_old).clamp(-kLogRatioLimit, kLogRatioLimit).exp();
}

TokenLoss clip_loss(const TokenInputs& in, const EstimatorOptions& o) {
  const Tensor rho = ratio_of(in);
  const Tensor clipped = rho.clamp(1 - o.clip_low, 1 + o.clip_high);
  TokenLoss loss;
  loss.value = -torch::min(rho * in.advantage, clipped * in.advantage);
  mark_clipped(loss, rho, in, 1 - o.clip_low, 1 + o.clip_high);
  if (o.dual_clip > 0) {
    const Tensor bound = -o.dual_clip * in.advantage;
    const Tensor limited = torch::min(loss.value, bound.expand_as(loss.value));
    loss.value = torch::where(in.advantage < 0, limited, loss.value);
    loss.clipped_dual = in.mask & (in.advantage < 0) & (rho > o.dual_clip);
  }
  loss.value = loss.value * in.weight;
  return loss;
}

TokenLoss minirl_loss(const TokenInputs& in, const EstimatorOptions& o) {
  const Tensor rho = ratio_of(in).detach();
  Tensor mismatch =
      (in.logp_old - in.logp_rollout).clamp(-kLogRatioLimit, kLogRatioLimit).exp();
  if (o.minirl_cap > 0) mismatch = mismatch.clamp_max(o.minirl_cap);
  TokenLoss loss;
  mark_clipped(loss, rho, in, 1 - o.clip_low, 1 + o.clip_high);
  const Tensor kept = (loss.clipped_low | loss.clipped_high).logical_not();
  loss.value = -in.weight * kept * (mismatch * rho) * in.advantage * in.logp_new;
  return loss;
}

TokenLoss gmpo_loss(const TokenInputs& in, const EstimatorOptions& o) {
  const Tensor l = in.logp_new - in.logp_old, s = in.advantage.sign();
  const Tensor one_sided = s * torch::min(s * l, s * l.clamp(-o.gmpo_clip, o.gmpo_clip));
  const Tensor kept = torch::where(in.mask, one_sided, torch::zeros_like(one_sided));
  const Tensor mean = kept.sum(1) / in.mask.sum(1).clamp_min(1);
  TokenLoss loss;
  loss.value = -in.advantage.squeeze(1) * mean.exp();
  mark_clipped(loss, l, in, -o.gmpo_clip, o.gmpo_clip);
  return loss;
}

}  // namespace

TokenLoss token_loss(const TokenInputs& in, const EstimatorOptions& o) {
  switch (o.loss) {
    case LossKind::kClip:
      return clip_loss(in, o);
    case LossKind::kMiniRl:
      return minirl_loss(in, o);
    case LossKind::kGmpo:
      return gmpo_loss(in, o);
    case LossKind::kPolicyGradient:
      break;
  }
  const Tensor never = torch::zeros_like(in.mask);
  return {-in.weight * in.advantage * in.logp_new, never, never, never};
}

}  // namespace pion::lab
