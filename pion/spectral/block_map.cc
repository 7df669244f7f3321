// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/block_map.h"

#include <algorithm>
#include <cmath>

#include "pion/spectral/f32_map.h"
#include "pion/spectral/flush_denormals.h"
#include "pion/spectral/normalization.h"
#include "pion/spectral/tile_map.h"

namespace pion {

bool BlockMap::load(const BlockSource& source, const SpectralMap& map, double magnitude,
                    bool collect_statistics, Executor& executor) {
  rows_ = source.rows();
  cols_ = source.cols();
  wide_ = rows_ <= cols_;
  collect_ = collect_statistics;
  statistics_ = {};
  zero_ = rows_ == 0 || cols_ == 0;
  if (zero_) return true;
  allocate(map);

  const ScaledLoad loaded = load_scaled(magnitude, [&](float scale, bool first) {
    return load_all(source, scale, first, executor);
  });
  scale_ = loaded.scale;
  zero_ = loaded.zero;
  if (loaded.finite && !zero_) norm_ = std::sqrt(gram_trace());
  return loaded.finite;
}

void BlockMap::apply(const SpectralMap& map, Executor& executor) {
  if (zero_) return;
  const FlushDenormals flush;
  const bool spectral = map.normalization == Normalization::kSpectral;
  double sigma = 1.0;
  if (spectral || collect_) {
    const int steps = spectral ? kNormSteps<float> : kStatisticsSteps;
    sigma = std::sqrt(largest_eigenvalue_of_gram(steps));
    statistics_.frobenius_norm = norm_ / scale_;
    statistics_.sigma_max = sigma * norm_ / scale_;
    statistics_.stable_rank = 1.0 / (sigma * sigma);
  }
  factor_ = 1.0 / (norm_ * map.norm_margin * (spectral ? sigma : 1.0));
  iterate(map, executor);
}

double BlockMap::update(MatrixView weight, double decay, double alpha,
                        Executor& executor) {
  if (zero_) {
    const auto by = static_cast<float>(decay);
    for (std::int64_t i = 0; i < rows_; ++i) {
      float* row = weight.row(i);
      for (std::int64_t j = 0; j < cols_; ++j) row[j] = decay == 0 ? 0.0f : by * row[j];
    }
    return 0.0;
  }
  const FlushDenormals flush;
  const double squares = move(weight, decay, alpha, executor);
  if (collect_) {
    statistics_.directions_passed = squares;
    const double normalized = factor_ * norm_;  // ||factor X||_F
    statistics_.energy_kept =
        squares > 0 ? std::min(1.0, inner_ * inner_ / (normalized * normalized * squares))
                    : 0.0;
  }
  return squares;
}

std::unique_ptr<BlockMap> make_block_map(CpuTarget target, bool narrow) {
  if (narrow && has_bf16(target)) return std::make_unique<TileMap>(target);
  return std::make_unique<F32Map>(target);
}

}  // namespace pion
