// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pion/bfloat16.h"
#include "pion/matrix_view.h"
#include "pion/spectral/coefficients.h"

namespace pion {

enum class CpuTarget : int;  // pion/kernels/cpu_target.h
class BlockMap;              // pion/spectral/block_map.h

// Source: K. Jordan et al., "Muon", 2024 (the iteration); arXiv:2605.19282 (the
// high-pass).
//
//   X <- input / (norm_margin * norm), transposed if rows > cols
//   X <- a X + (b A + c A^2) X, A = X X^T      for every (a, b, c) of the sequence
//
// Differs from the sources: the iteration runs in f32 (f64 for f64 input) unless another
// Precision is asked for; there is no epsilon beside the norm, so that the result does
// not depend on the scale of the input.
enum class Normalization {
  kFrobenius,  // divide by ||X||_F
  kSpectral,   // divide by sigma_1 (Lanczos on the Gram matrix, see largest_eigenvalue.h)
};

// What the products of a polynomial map are computed in. Error figures are in
// docs/kernels.md.
enum class Precision {
  kFast,      // bf16 products, f32 sums; no further off than direct bf16 code
  kAccurate,  // bf16 X; Gram matrix, its polynomials and their effect in f32 or split
              // bf16
  kF32,       // f32 throughout
};

// A map of singular values: X = U S V^T becomes U f(S / norm) V^T.
struct SpectralMap {
  enum class Kind {
    kPolynomial,  // f is `sequence`, no decomposition needed
    kLowRank,     // exact SVD: the `rank` largest go to 1, the rest to 0
    kLowPass,     // exact SVD: values with s / ||X||_F < cutoff go to 1, the rest to 0
  };
  Kind kind = Kind::kPolynomial;
  QuinticSequence sequence;                                 // kPolynomial
  Normalization normalization = Normalization::kFrobenius;  // kPolynomial
  double norm_margin = 1.0;  // the norm is multiplied by it; >= 1
  Precision precision =
      Precision::kF32;    // kPolynomial; ignored for double, which is exact
  std::int64_t rank = 0;  // kLowRank; > 0, min(rows, cols) at most is used
  double cutoff = 0.0;    // kLowPass
};

// What one application did to one matrix; all zeros for a zero input.
struct SpectrumStatistics {
  double frobenius_norm = 0;     // ||X||_F
  double sigma_max = 0;          // largest singular value of X (Lanczos, 1 % or better)
  double stable_rank = 0;        // ||X||_F^2 / sigma_max^2
  double directions_passed = 0;  // ||O||_F^2: the number of directions when f is 0 or 1
  double energy_kept = 0;  // <X, O>^2 / (||X||_F^2 ||O||_F^2), in [0, 1]; 0 if O is zero
};

// Scratch memory that grows once and is kept. One per thread.
class SpectralWorkspace {
 public:
  SpectralWorkspace();  // kernels of cpu_target()
  explicit SpectralWorkspace(CpuTarget target);
  ~SpectralWorkspace();
  SpectralWorkspace(SpectralWorkspace&&) noexcept;
  SpectralWorkspace& operator=(SpectralWorkspace&&) noexcept;

  struct Buffers;
  Buffers& buffers() { return *buffers_; }

  // The one that suits the map's sequence; made at the first call.
  BlockMap& block_map(const SpectralMap& map);

 private:
  std::unique_ptr<Buffers> buffers_;
};

// output[i] = map(input[i]) for every matrix of a batch (heads of one projection, experts
// of a stack). T is float, double or bfloat16 (computed in float, rounded at the end).
//
//   input       read only; may have any row stride; shapes may differ within the batch
//   output      written; output[i] has the shape of input[i]; must not overlap any input
//   statistics  written if not empty; one per matrix
//
// A zero matrix gives zero. If any matrix has a non-finite entry, the whole batch is
// refused: returns false, nothing is written. Results do not depend on the batch a matrix
// is in, on its stride or on the other calls of a workspace; they do depend on the CPU
// target. While it runs, denormal results of this thread become zero. After a call,
// further ones with the same or smaller shapes allocate nothing, except for kLowRank and
// kLowPass. Calls with different workspaces may run in parallel. Throws
// std::invalid_argument, before anything is written, on a shape mismatch or an invalid
// map: one whose sequence changes a sign or diverges on what normalization may hand to
// it, [0, (1 + 1e-5) / norm_margin], for kSpectral [0, 1.01 / norm_margin].
template <class T>
bool apply_spectral_map(const SpectralMap& map,
                        std::span<const MatrixViewOf<const T>> input,
                        std::span<const MatrixViewOf<T>> output,
                        SpectralWorkspace& workspace,
                        std::span<SpectrumStatistics> statistics = {});

// Singular values of X, largest first (exact SVD in double; for reports, not for
// training).
template <class T>
std::vector<double> singular_values(MatrixViewOf<const T> x);

extern template bool apply_spectral_map<float>(const SpectralMap&,
                                               std::span<const MatrixViewOf<const float>>,
                                               std::span<const MatrixViewOf<float>>,
                                               SpectralWorkspace&,
                                               std::span<SpectrumStatistics>);
extern template bool apply_spectral_map<double>(
    const SpectralMap&, std::span<const MatrixViewOf<const double>>,
    std::span<const MatrixViewOf<double>>, SpectralWorkspace&,
    std::span<SpectrumStatistics>);
extern template bool apply_spectral_map<bfloat16>(
    const SpectralMap&, std::span<const MatrixViewOf<const bfloat16>>,
    std::span<const MatrixViewOf<bfloat16>>, SpectralWorkspace&,
    std::span<SpectrumStatistics>);

}  // namespace pion
