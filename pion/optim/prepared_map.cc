// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/prepared_map.h"

#include <type_traits>
#include <utility>

namespace pion {
namespace {

// Whether two rules give the same map to the same shape, whatever their rates.
bool same_map(const Rule& a, const Rule& b) {
  if (a.index() != b.index()) return false;
  return std::visit(
      [&b]<class R>(const R& x) {
        const R& y = std::get<R>(b);
        if constexpr (std::is_same_v<R, PionRule>) {
          return x.cutoff == y.cutoff && x.edge_factor == y.edge_factor &&
                 x.promotion_steps == y.promotion_steps && x.steps == y.steps &&
                 x.normalization == y.normalization && x.precision == y.precision;
        } else if constexpr (std::is_same_v<R, MuonRule>) {
          return x.coefficients == y.coefficients && x.steps == y.steps &&
                 x.normalization == y.normalization && x.precision == y.precision;
        } else if constexpr (std::is_same_v<R, LowRankMuonRule>) {
          return x.rank == y.rank;
        } else if constexpr (std::is_same_v<R, LowPassMuonRule>) {
          return x.cutoff == y.cutoff;
        } else {
          return false;
        }
      },
      a);
}

}  // namespace

const MatrixStepWorkspace::PreparedMap& prepared_map(MatrixStepWorkspace& workspace,
                                                     const Rule& rule,
                                                     const Block& block) {
  for (const auto& known : workspace.maps) {
    if (known.rows == block.rows && known.cols == block.cols &&
        same_map(known.rule, rule)) {
      return known;
    }
  }
  // a schedule on the cutoff must not fill the memory
  constexpr std::size_t kMostMaps = 256;
  if (workspace.maps.size() >= kMostMaps) workspace.maps.clear();
  SpectralMap map = rule_map(rule, block.rows, block.cols);
  const double half_pass =
      std::holds_alternative<PionRule>(rule) ? half_pass_point(map.sequence) : 0.0;
  workspace.maps.push_back({rule, block.rows, block.cols, std::move(map), half_pass});
  return workspace.maps.back();
}

}  // namespace pion
