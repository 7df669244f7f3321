// SPDX-License-Identifier: Apache-2.0
#include "lab/models/generation_sampler.h"

#include <algorithm>
#include <cmath>

#include "lab/models/generation_kernels.h"

namespace pion::lab {

bool TokenSampler::choose(std::span<const float> logits, double uniform,
                          TokenChoice& choice) {
  const float highest = decode_kernels().highest(logits.data(), logits.size());
  if (!std::isfinite(highest)) return false;
  const bool whole = (top_k_ <= 0 || top_k_ >= std::ssize(logits)) && top_p_ >= 1;
  choice = greedy() || whole ? choose_whole(logits, highest, uniform)
                             : choose_from(keep(logits), uniform);
  return true;
}

TokenChoice TokenSampler::choose_whole(std::span<const float> logits, float highest,
                                       double uniform) {
  const float scale = greedy() ? 1.0f : static_cast<float>(1 / temperature_);
  weights_.resize(logits.size());
  const double total = decode_kernels().exponentials(logits.data(), logits.size(),
                                                     highest, scale, weights_.data());
  // rounding may leave a crumb after the last token: it goes to the likeliest
  std::size_t token = std::find(logits.begin(), logits.end(), highest) - logits.begin();
  if (!greedy()) {
    double left = uniform * total;
    for (std::size_t i = 0; i < weights_.size(); ++i)
      if ((left -= weights_[i]) < 0) {
        token = i;
        break;
      }
  }
  return {
      static_cast<std::int64_t>(token),
      static_cast<float>(double{(logits[token] - highest) * scale} - std::log(total))};
}

std::span<const TokenSampler::Candidate> TokenSampler::keep(
    std::span<const float> logits) {
  candidates_.resize(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    candidates_[i] = {logits[i], static_cast<std::int32_t>(i)};
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  std::size_t count = candidates_.size();
  if (top_k_ > 0 && top_k_ < std::ssize(logits)) {
    std::nth_element(candidates_.begin(), candidates_.begin() + (top_k_ - 1),
                     candidates_.end(), before);
    const float last = candidates_[top_k_ - 1].logit;
    count = std::partition(candidates_.begin() + top_k_, candidates_.end(),
                           [&](const Candidate& c) { return c.logit == last; }) -
            candidates_.begin();
  }
  std::sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(count),
            before);
  if (top_p_ < 1) {
    // the fewest of the likeliest whose probability reaches top_p
    const float highest = candidates_[0].logit;
    weights_.resize(count);
    double total = 0, sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
      weights_[i] =
          std::exp(static_cast<float>((candidates_[i].logit - highest) / temperature_));
      total += weights_[i];
    }
    std::size_t kept = 0;
    while (kept < count && sum < top_p_ * total) sum += weights_[kept++];
    count = std::max<std::size_t>(kept, 1);
  }
  return {candidates_.data(), count};
}

TokenChoice TokenSampler::choose_from(std::span<const Candidate> kept,
                                      double uniform) const {
  const float highest = kept[0].logit;
  const auto weight = [&](const Candidate& c) {
    return std::exp(static_cast<float>((c.logit - highest) / temperature_));
  };
  double total = 0;
  for (const Candidate& c : kept) total += weight(c);
  double left = uniform * total;
  const Candidate* chosen = &kept[0];
  for (const Candidate& c : kept)
    if ((left -= weight(c)) < 0) {
      chosen = &c;
      break;
    }
  return {chosen->token,
          static_cast<float>((chosen->logit - highest) / temperature_ - std::log(total))};
}

}  // namespace pion::lab
