// SPDX-License-Identifier: Apache-2.0
// One step of low-rank Muon, which decomposes by pion's Eigen, beside the program's own;
// returns 0 if the update has the rank that was asked for.
#include <pion/optim.h>

#include <Eigen/QR>
#include <iostream>
#include <vector>

int main() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    std::cout << "this CPU has no AVX2\n";
    return 0;
  }
  constexpr int kRows = 24, kCols = 40, kRank = 3;
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Matrix gradient = Matrix::Random(kRows, kCols);
  Matrix weight = Matrix::Zero(kRows, kCols), momentum = weight;
  pion::LowRankMuonRule rule;
  rule.lr = 1, rule.rank = kRank, rule.scale = pion::Scale::kSpectral;
  pion::MatrixStepWorkspace workspace;
  pion::matrix_step<float>(pion::view(weight.data(), kRows, kCols),
                           pion::view<const float>(gradient.data(), kRows, kCols),
                           pion::view(momentum.data(), kRows, kCols), rule, {},
                           workspace);
  // all singular values are lr s = sqrt(24 / 40) or 0
  const Eigen::MatrixXd update = weight.cast<double>();
  Eigen::ColPivHouseholderQR<Eigen::MatrixXd> factors(update);
  factors.setThreshold(1e-4);
  const double square = double{kRows} / kCols;
  const double gap = (update * update.transpose() * update - square * update).norm();
  std::cout << "rank " << factors.rank() << ", gap " << gap << '\n';
  return factors.rank() == kRank && gap < 1e-4 ? 0 : 1;
}
