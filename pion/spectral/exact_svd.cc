// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/exact_svd.h"

#include <Eigen/SVD>
#include <algorithm>
#include <cmath>
#include <limits>

namespace pion {

namespace {

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Map = Eigen::Map<const RowMajor, 0, Eigen::OuterStride<>>;

Map eigen_view(MatrixViewOf<const double> x) {
  return {x.data, x.rows, x.cols, Eigen::OuterStride<>(x.stride)};
}

}  // namespace

SpectrumStatistics apply_exact_map(const SpectralMap& map, MatrixViewOf<const double> x,
                                   MatrixViewOf<double> output) {
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(eigen_view(x),
                                           Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Eigen::VectorXd& s = svd.singularValues();  // largest first
  const double norm = s.norm();
  const double zero = static_cast<double>(std::max(x.rows, x.cols)) *
                      std::numeric_limits<double>::epsilon() * s(0);

  // passed values are neighbours: the first ones or those from some index on
  Eigen::Index first = 0, end = s.size();
  while (end > 0 && s(end - 1) <= zero) --end;
  if (map.kind == SpectralMap::Kind::kLowRank) {
    end = std::min<Eigen::Index>(end, map.rank);
  } else {
    while (first < end && s(first) >= map.cutoff * norm) ++first;
  }
  const Eigen::Index passed = end - first;
  Eigen::Map<RowMajor, 0, Eigen::OuterStride<>> out(output.data, output.rows, output.cols,
                                                    Eigen::OuterStride<>(output.stride));
  out.noalias() = svd.matrixU().middleCols(first, passed) *
                  svd.matrixV().middleCols(first, passed).transpose();

  SpectrumStatistics statistics;
  statistics.frobenius_norm = norm;
  statistics.sigma_max = s(0);
  statistics.stable_rank = s(0) > 0.0 ? (norm / s(0)) * (norm / s(0)) : 0.0;
  statistics.directions_passed = static_cast<double>(passed);
  if (passed > 0) {
    const double kept = s.segment(first, passed).sum() / norm;  // <X, O> / ||X||_F
    statistics.energy_kept = kept * kept / static_cast<double>(passed);
  }
  return statistics;
}

template <class T>
std::vector<double> singular_values(MatrixViewOf<const T> x) {
  if (x.rows == 0 || x.cols == 0) return {};
  Eigen::MatrixXd copy(x.rows, x.cols);
  for (std::int64_t i = 0; i < x.rows; ++i) {
    for (std::int64_t j = 0; j < x.cols; ++j) {
      copy(i, j) = static_cast<double>(
          static_cast<std::conditional_t<std::is_same_v<T, bfloat16>, float, T>>(
              x(i, j)));
    }
  }
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(copy);
  const Eigen::VectorXd& s = svd.singularValues();
  return {s.data(), s.data() + s.size()};
}

template std::vector<double> singular_values<float>(ConstMatrixView);
template std::vector<double> singular_values<double>(MatrixViewOf<const double>);
template std::vector<double> singular_values<bfloat16>(MatrixViewOf<const bfloat16>);

}  // namespace pion
