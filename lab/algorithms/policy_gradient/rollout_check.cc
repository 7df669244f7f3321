// SPDX-License-Identifier: Apache-2.0
#include "lab/algorithms/policy_gradient/rollout_check.h"

#include <string>

#include "lab/algorithms/policy_gradient/require.h"
#include "lab/run/diverged.h"

namespace pion::lab {
namespace {

using torch::Tensor;
constexpr const char* kPrepare = "Estimator::prepare: ";

void check_log_probabilities(const char* name, const Tensor& x, const Rollout& rollout) {
  require(x.sizes() == rollout.mask.sizes(), kPrepare, name,
          " must have the shape of mask, ", rollout.mask.sizes(), ", got ", x.sizes());
  require(x.scalar_type() == rollout.logp_old.scalar_type(), kPrepare, name,
          " must have the dtype of logp_old, ", rollout.logp_old.scalar_type(), ", got ",
          x.scalar_type());
  check_finite("Estimator::prepare", name, x, rollout.mask);
}

// One number a response, of the given type.
void check_column(const char* name, const Tensor& x, torch::ScalarType type,
                  const Rollout& rollout) {
  require(x.dim() == 1 && x.size(0) == rollout.mask.size(0), kPrepare, name,
          " must have shape [", rollout.mask.size(0), "], got ", x.sizes());
  require(x.scalar_type() == type, kPrepare, name, " must be ", type, ", got ",
          x.scalar_type());
}

void check_defined(const Tensor& x, const char* name, bool needed, const char* needs) {
  require(x.defined() || !needed, kPrepare, name, " must be given for ", needs,
          ", got an undefined tensor");
}

void check_fields_of(const Rollout& r, const EstimatorOptions& o) {
  const bool groups = o.advantage != AdvantageKind::kReinforce &&
                      o.advantage != AdvantageKind::kReinforcePlusPlus;
  check_defined(r.group, "group", groups, name_of(o.advantage).c_str());
  check_defined(r.group, "group", o.dynamic_sampling, "dynamic_sampling");
  check_defined(r.correct, "correct",
                o.dynamic_sampling && o.filter_metric == FilterMetric::kCorrect,
                "dynamic_sampling");
  check_defined(r.truncated, "truncated", o.drop_truncated, "drop_truncated");
  check_defined(r.logp_rollout, "logp_rollout", o.loss == LossKind::kMiniRl,
                "loss \"minirl\"");
  check_defined(r.logp_rollout, "logp_rollout", o.mismatch_correction,
                "mismatch_correction");
  check_defined(r.logp_ref, "logp_ref", o.kl != KlKind::kNone,
                ("kl \"" + name_of(o.kl) + "\"").c_str());
}

}  // namespace

void check_finite(const char* function, const char* name, const Tensor& x,
                  const Tensor& mask, const Tensor& response) {
  const Tensor bad = mask & x.isfinite().logical_not();
  if (!bad.any().item<bool>()) return;
  const Tensor at = bad.nonzero()[0].cpu();
  const std::int64_t row = at[0].item<std::int64_t>(), token = at[1].item<std::int64_t>();
  const std::int64_t shown =
      response.defined() ? response[row].item<std::int64_t>() : row;
  require<Diverged<std::invalid_argument>>(
      false, function, ": ", name, " must be finite, got ", x[row][token].item<double>(),
      " in response ", shown, ", token ", token, " of the padded row (",
      bad.sum().item<std::int64_t>(), " such values); the logits are not finite there");
}

void check_rollout(const Rollout& r, const EstimatorOptions& o) {
  check_defined(r.mask, "mask", true, "every method");
  check_defined(r.logp_old, "logp_old", true, "every method");
  check_defined(r.reward, "reward", true, "every method");
  require(r.mask.dim() == 2 && r.mask.scalar_type() == torch::kBool && r.mask.size(0) > 0,
          kPrepare, "mask must be (B, T) bool with B > 0, got ", r.mask.sizes(), " ",
          r.mask.scalar_type());
  require(r.logp_old.scalar_type() == torch::kFloat32 ||
              r.logp_old.scalar_type() == torch::kFloat64,
          kPrepare, "logp_old must be f32 or f64, got ", r.logp_old.scalar_type());
  check_log_probabilities("logp_old", r.logp_old, r);
  check_fields_of(r, o);
  if (r.logp_rollout.defined())
    check_log_probabilities("logp_rollout", r.logp_rollout, r);
  if (r.logp_ref.defined()) check_log_probabilities("logp_ref", r.logp_ref, r);
  if (r.group.defined()) check_column("group", r.group, torch::kInt64, r);
  if (r.correct.defined()) check_column("correct", r.correct, torch::kBool, r);
  if (r.truncated.defined()) check_column("truncated", r.truncated, torch::kBool, r);
  check_column(
      "reward", r.reward,
      r.reward.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32, r);
  const Tensor bad = r.reward.isfinite().logical_not();
  if (!bad.any().item<bool>()) return;
  const std::int64_t row = bad.nonzero()[0].item<std::int64_t>();
  require(false, kPrepare, "reward must be finite, got ", r.reward[row].item<double>(),
          " for response ", row, " (", bad.sum().item<std::int64_t>(),
          " such values); look at what the verifier returns for it");
}

}  // namespace pion::lab
