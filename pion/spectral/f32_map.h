// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pion/kernels/cpu_target.h"
#include "pion/kernels/gemm.h"
#include "pion/spectral/block_map.h"
#include "pion/spectral/flush_denormals.h"
#include "pion/spectral/largest_eigenvalue.h"
#include "pion/spectral/scratch.h"
#include "pion/spectral/tile_policy.h"

namespace pion {

// A BlockMap in f32 throughout: Precision::kF32, and all of them on targets without bf16
// products, where kFast and kAccurate are the same.
//
// Where the long side is at least 1.5 times the short one, m, and f32_policy() allows it,
// the map runs in Gram space, on (m x m) matrices alone. With A = X X^T / norm^2, Q = I
// and P = b A + c A^2 for every (a, b, c):
//
//   Q <- a Q + P Q,  T = a A + P A,  A <- a T + P T       and once at the end   O = Q X
//
// All of them are polynomials of one matrix, so half of each product is enough. A tall X
// is (n x m) and stands on the left: O = X Q. With a restart X <- Q X, A = X X^T and Q =
// I before one step. Other matrices run
//
//   X <- a X + P X
//
// Both with tall ones transposed. Errors and costs: docs/kernels.md.
class F32Map : public BlockMap {
 public:
  explicit F32Map(CpuTarget target) : target_(target) {}

 private:
  // Denormals become zero in the tasks, too, which may run on threads of their own.
  class Flushing : public Executor {
   public:
    explicit Flushing(Executor& executor) : executor_(executor) {}
    int threads() const override { return executor_.threads(); }
    void run(int tasks, FunctionRef<void(int, int)> work) override {
      executor_.run(tasks, [&](int task, int thread) {
        const FlushDenormals flush;
        work(task, thread);
      });
    }

   private:
    Executor& executor_;
  };

  void allocate(const SpectralMap& map) override;
  std::uint32_t load_all(const BlockSource& source, float scale, bool update_momentum,
                         Executor& executor) override;
  double gram_trace() const override;
  double largest_eigenvalue_of_gram(int steps) override;
  void iterate(const SpectralMap& map, Executor& executor) override;
  double move(MatrixView weight, double decay, double alpha, Executor& executor) override;

  GemmMemory<float> memory(Executor& executor);
  void load_rows(const BlockSource& source, float scale, bool update_momentum,
                 std::int64_t row, std::int64_t rows, std::int64_t first_column,
                 std::uint32_t& largest);
  void load_chunk(const BlockSource& source, float scale, bool update_momentum,
                  std::int64_t row, std::int64_t rows, Executor& executor);
  void scale_gram(double square, Executor& executor);
  void iterate_gram(const SpectralMap& map, Executor& executor);
  void restart(Executor& executor);
  void iterate_directly(const SpectralMap& map, Executor& executor);
  double move_output(MatrixView weight, double decay, double alpha, Executor& executor);

  const CpuTarget target_;

  TilePolicy policy_;
  bool turned_ = false;                // a tall X is held as (m x n)
  double x_factor_ = 1;                // O is the map of x_factor X
  std::int64_t m_ = 0, n_ = 0;         // short and long side
  std::int64_t band_ = 0, chunk_ = 0;  // rows of a task of load, and of a Gram matrix

  MatrixView x_;                       // as D, or (m x n)
  MatrixView next_;                    // of the direct iteration or a restart
  MatrixView transposed_;              // (m x chunk), a piece of a tall X
  MatrixView a_, p_, t_, q_, q_next_;  // (m x m)

  Scratch<float> x_memory_, next_memory_, transposed_memory_, first_;
  Scratch<float> a_memory_, p_memory_, t_memory_, q_memory_, q_next_memory_;
  Scratch<float> packed_;               // kGemmScratch a thread
  Scratch<double> squares_;             // one per task
  std::vector<std::uint32_t> largest_;  // one per band
  LanczosScratch lanczos_;
};

}  // namespace pion
