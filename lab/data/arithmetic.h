// SPDX-License-Identifier: Apache-2.0
// The built-in task: two-digit sums and differences, one line after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lab/data/problem_set.h"

namespace pion::lab {

// Prompt "37+48-29:", answer "37+48=85,85-29=56,\boxed{56}" and the stop token; characters are
// tokens. Operands have `digits` digits, every problem has `operations` of them; a hash of the
// problem splits off the held-out ones. The teacher of `solution` may err: it forgets the carry
// of a line with probability `forget_carry` and leaves the box out with `unboxed`, each
// problem always in the same way.
struct ArithmeticOptions {
  int digits = 2;             // in [1, 4]
  int operations = 2;         // in [1, 4]
  double forget_carry = 0.0;  // in [0, 1]
  double unboxed = 0.0;       // in [0, 1]
  double held_out = 0.1;      // fraction of problems, in (0, 1)
  std::uint64_t seed = 0;     // of the order of problems and of the teacher's mistakes
};

std::unique_ptr<ProblemSet> make_arithmetic(const ArithmeticOptions& options);

// tokenizer.json, tokenizer_config.json and special tokens of the character vocabulary, so that
// `transformers` loads what was trained: file name -> content.
std::vector<std::pair<std::string, std::string>> arithmetic_tokenizer_files();

}  // namespace pion::lab
