// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/singular_bands.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>

namespace pion::lab {

using torch::Tensor;

namespace {

struct Band {
  const char* name;
  std::int64_t first, end;  // from 0
};

constexpr Band kBands[] = {
    {"signal_1", 0, 1},
    {"signal_2_4", 1, 4},
    {"signal_5_16", 4, 16},
    {"signal_17_64", 16, 64},
    {"signal_65_up", 64, std::numeric_limits<std::int64_t>::max()}};

constexpr double kNone = 1e-6;  // of the first singular value: rounding of f32 gradients

}  // namespace

Json singular_band_signal(const std::vector<Tensor>& gradients,
                          const std::vector<Tensor>& independent) {
  if (gradients.size() != independent.size())
    throw std::invalid_argument(
        "singular_band_signal: needs an independent gradient for each of " +
        std::to_string(gradients.size()) + ", got " + std::to_string(independent.size()));
  std::vector<double> along(std::size(kBands)), strength(std::size(kBands));
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    if (gradients[i].dim() != 2 || gradients[i].sizes() != independent[i].sizes())
      throw std::invalid_argument("singular_band_signal: gradient " + std::to_string(i) +
                                  " must be 2-D and of the shape of the independent one");
    const auto [u, s, vh] =
        torch::linalg_svd(gradients[i].to(torch::kDouble), /*full_matrices=*/false);
    const std::int64_t rank = (s > kNone * s.max()).sum().item<std::int64_t>();
    const Tensor parts =
        (u.transpose(0, 1).matmul(independent[i].to(torch::kDouble)) * vh).sum(1);
    for (std::size_t b = 0; b < std::size(kBands); ++b) {
      const std::int64_t end = std::min(kBands[b].end, rank);
      if (kBands[b].first >= end) continue;
      along[b] += parts.slice(0, kBands[b].first, end).sum().item<double>();
      strength[b] += s.slice(0, kBands[b].first, end).sum().item<double>();
    }
  }
  Json json = Json::object();
  for (std::size_t b = 0; b < std::size(kBands); ++b)
    if (strength[b] > 0) json[kBands[b].name] = along[b] / strength[b];
  return json;
}

}  // namespace pion::lab
