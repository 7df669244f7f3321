// SPDX-License-Identifier: Apache-2.0
// The built-in task: sums and differences, one line after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lab/data/problem_set.h"

namespace pion::lab {

// Prompt "37+48-29:", solution "37+48=85,85-29=56,\boxed{56}" and the stop token;
// characters are tokens, left to right, intermediate results may be negative. All prompts
// of a kind have one length. A kind is a pattern: d a digit (numbers have no leading
// zero), + and - themselves, ? either of them: "dd?dd?dd" draws the problem above.
//
// Skills that RL does not train: SFT on several kinds, RL on one of them, and one set for
// each of the others to measure what is kept:
//
//   sft = make_arithmetic({.kinds = {"dd?dd?dd", "dd-dd", "ddd+dd"}});
//   rl = make_arithmetic({.kinds = {"dd?dd?dd"}});
//   retention = make_arithmetic({.kinds = {"dd-dd"}});
//
// Held out is who has held-out numbers: a hash of a problem's numbers, of neither
// operators nor seed, so a problem is in the same split of every set with the same
// `held_out`.
struct ArithmeticOptions {
  // They take turns (index i is of kind i mod count); a name given twice comes twice as
  // often. A split's size is count times its largest kind's; smaller kinds start again.
  std::vector<std::string> kinds = {"dd?dd?dd"};
  // The teacher of `solution` may err, each problem always in the same way: it forgets
  // all carries and borrows of a line (37+48=75) with probability `forget_carry` and goes
  // on from there, and ends without the box ("37+48=85,85-29=56") with `unboxed`.
  // `answer` is always true.
  double forget_carry = 0.0;  // in [0, 1]
  double unboxed = 0.0;       // in [0, 1]
  double held_out = 0.1;      // fraction of problems, in (0, 1)
  std::uint64_t seed = 0;     // of the order of problems and of the teacher's mistakes
};

// Throws std::invalid_argument: a pattern that cannot be read, more than 5 numbers of 4
// digits, an option out of range, so few problems that a split is empty.
std::unique_ptr<ProblemSet> make_arithmetic(const ArithmeticOptions& options);

// tokenizer.json, tokenizer_config.json and special_tokens_map.json of the character
// vocabulary, so that `transformers` loads what was trained: file name -> content.
std::vector<std::pair<std::string, std::string>> arithmetic_tokenizer_files();

}  // namespace pion::lab
