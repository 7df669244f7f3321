// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "pion/executor.h"
#include "pion/kernels/cpu_target.h"
#include "pion/spectral/block_source.h"
#include "pion/spectral/spectral_map.h"

namespace pion {

// A polynomial spectral map of one f32 matrix under Precision::kFast or kAccurate, in
// three parts: load, apply, then update or store. Holds scratch memory, which grows once.
// The parts run on all threads of the executor; results are the same bits for any number.
class BlockMap {
 public:
  virtual ~BlockMap() = default;

  // Takes X from a source whose momentum is moved on the way. `magnitude` is a guess of
  // the usual |D|, which costs a second pass where it is off by more than 2^30. False if
  // an entry of D is not finite; the momentum has moved even then.
  virtual bool load(const BlockSource& source, double magnitude, bool collect_statistics,
                    Executor& executor) = 0;

  virtual void apply(const SpectralMap& map, Executor& executor) = 0;

  // W <- decay W + alpha O. Returns ||O||_F^2.
  virtual double update(MatrixView weight, double decay, double alpha,
                        Executor& executor) = 0;
  // out = O. Returns ||O||_F^2.
  double store(MatrixView out, Executor& executor) {
    return update(out, 0.0, 1.0, executor);
  }

  // After update or store, if load was told to collect them.
  virtual SpectrumStatistics statistics() const = 0;
};

// Products of bf16 tiles where the target has them, else f32.
std::unique_ptr<BlockMap> make_block_map(CpuTarget target);

}  // namespace pion
