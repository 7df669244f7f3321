// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pion/matrix_view.h"
#include "pion/spectral/spectral_map.h"

namespace pion {

// The maps that need a decomposition: kLowRank and kLowPass. `x` (m x n), read only, is
// scaled so that its largest entry is about 1; `output` (m x n) is written. Singular
// values below max(m, n) eps sigma_1 count as zero and stay zero: their vectors are
// rounding noise. Allocates (inside Eigen). Returns the statistics of x.
SpectrumStatistics apply_exact_map(const SpectralMap& map, MatrixViewOf<const double> x,
                                   MatrixViewOf<double> output);

}  // namespace pion
