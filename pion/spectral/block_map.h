// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "pion/executor.h"
#include "pion/kernels/cpu_target.h"
#include "pion/spectral/block_source.h"
#include "pion/spectral/spectral_map.h"

namespace pion {

// A polynomial spectral map of one f32 matrix in three parts: load, apply, then update or
// store. Holds scratch memory, which grows once.
// The parts run on all threads of the executor; results are the same bits for any number.
class BlockMap {
 public:
  virtual ~BlockMap() = default;

  // Takes X from a source whose momentum is moved on the way. `magnitude` is a guess of
  // the usual |D|, which costs a second pass where it is off by more than 2^30. False if
  // an entry of D is not finite; the momentum has moved even then. `map` is the one that
  // will be applied.
  bool load(const BlockSource& source, const SpectralMap& map, double magnitude,
            bool collect_statistics, Executor& executor);

  void apply(const SpectralMap& map, Executor& executor);

  // W <- decay W + alpha O. Returns ||O||_F^2.
  double update(MatrixView weight, double decay, double alpha, Executor& executor);
  // out = O. Returns ||O||_F^2.
  double store(MatrixView out, Executor& executor) {
    return update(out, 0.0, 1.0, executor);
  }

  // After update or store, if load was told to collect them.
  const SpectrumStatistics& statistics() const { return statistics_; }

 protected:
  // What the kinds of products differ in. The shape is set when they are called.
  virtual void allocate(const SpectralMap& map) = 0;
  // X = scale D and the Gram matrix of X; the momentum moves if `first`. Returns the bits
  // of the largest |D|.
  virtual std::uint32_t load_all(const BlockSource& source, float scale, bool first,
                                 Executor& executor) = 0;
  virtual double gram_trace() const = 0;
  // sigma_1^2 of X / ||X||, by Lanczos on the Gram matrix.
  virtual double largest_eigenvalue_of_gram(int steps) = 0;
  // The map of factor X.
  virtual void iterate(const SpectralMap& map, Executor& executor) = 0;
  // As update; also sets inner_ if collect_.
  virtual double move(MatrixView weight, double decay, double alpha,
                      Executor& executor) = 0;

  // the block at hand
  std::int64_t rows_ = 0, cols_ = 0;
  bool wide_ = true;  // rows <= cols
  bool collect_ = false;
  double norm_ = 0;    // ||X||_F
  double factor_ = 1;  // 1 / ||X||, or what else normalizes it
  double inner_ = 0;   // <factor X, O>

 private:
  bool zero_ = false;
  double scale_ = 1;  // X = scale D
  SpectrumStatistics statistics_;
};

// Products of bf16 tiles where the target has them and they may be narrow, else f32.
std::unique_ptr<BlockMap> make_block_map(CpuTarget target, bool narrow = true);

}  // namespace pion
