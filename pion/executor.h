// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "pion/function_ref.h"

namespace pion {

// Runs independent tasks on several threads. What a task computes must not depend on the
// thread that takes it.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual int threads() const = 0;

  // Calls work(task, thread) once for every task in [0, tasks), in any order, with thread
  // in [0, threads()); no two calls at a time share a `thread`. Returns when all are
  // done. If a task throws, the rest may be left out and one of the exceptions is thrown
  // here. Not reentrant: a task must not call run().
  virtual void run(int tasks, FunctionRef<void(int task, int thread)> work) = 0;
};

// Calls everything in order on the calling thread.
class SerialExecutor : public Executor {
 public:
  int threads() const override { return 1; }
  void run(int tasks, FunctionRef<void(int, int)> work) override {
    for (int task = 0; task < tasks; ++task) work(task, 0);
  }
};

// `threads` - 1 threads of its own beside the calling one, kept until it is destroyed.
// Throws std::invalid_argument if threads < 1.
std::unique_ptr<Executor> make_thread_pool(int threads);

}  // namespace pion
