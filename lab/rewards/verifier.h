// SPDX-License-Identifier: Apache-2.0
// Verifiers: is an answer right, and does it have the form that was asked for?
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pion::lab {

struct Attempt {
  std::string_view prompt;     // text
  std::string_view response;   // text that the model produced
  std::string_view reference;  // Problem::answer
  std::string_view extra;      // Problem::extra, JSON or empty; may hold alternatives
};

struct Verdict {
  bool correct = false;    // the formatted answer equals the reference
  bool formatted = false;  // it stands where it was asked for: in a box, after ####
  bool right_unformatted = false;  // no form, but right when that is ignored: last number
  bool failed = false;             // no verdict: the worker hung, died or sent rubbish
  double reward = 0;               // correctness and format, weighted; finite
};

// reward = correct * score + format * (1 if formatted else 0). The score is 1 for a right
// answer and 0 for a wrong one, except where a scorer gives partial credit:
// reasoning-gym's score, and what a user's function returns.
struct RewardWeights {
  double correct = 1.0;
  double format = 0.0;
};

struct VerifierOptions {
  RewardWeights weights;         // finite
  double timeout_seconds = 5.0;  // of one attempt in a worker; > 0
  double failed_reward = 0.0;    // reward of an attempt whose worker failed
  int workers = 1;               // processes that share a batch; in [1, 64]
  std::string answer_after;      // what follows its last place is judged; "": all
  double gigabytes = 4;          // of memory that a worker may fill; > 0
  // Data sets that "reasoning_gym" will be asked about, as far as known: those whose
  // scorers evaluate what they are given are refused at the start unless named.
  std::vector<std::string> data_sets;
  // Told once of every kind of failure, on judge's thread. Default: to standard error.
  std::function<void(const std::string&)> warn;
};

class Verifier {
 public:
  virtual ~Verifier() = default;
  // One verdict an attempt, in order. Throws nothing on account of an attempt.
  virtual std::vector<Verdict> judge(std::span<const Attempt> attempts) = 0;
  // Attempts since the start whose verdict a worker failed to give (hung, died, rubbish).
  virtual std::int64_t failures() const { return 0; }
};

// name: "boxed", "hash" (####), "last_number": built in, numbers compared exactly
// (answer.h, number.h); "math_verify": LaTeX by the package of that name;
// "reasoning_gym", or "reasoning_gym+countdown" with the scorers named that evaluate what
// they are given; "my_module:score": a user's own function. All but the first three run
// in Python, confined: see worker.h and confinement.h. Throws std::invalid_argument for
// an unknown name or a worker that does not start (with its message).
std::unique_ptr<Verifier> make_verifier(const std::string& name,
                                        const VerifierOptions& options);

// Whether a file may choose this verifier: boxed, hash, last_number, math_verify or
// reasoning_gym. Functions, and scorers that evaluate, are for the user alone to name.
bool is_built_in(const std::string& name);
inline constexpr const char* kBuiltInVerifiers =
    "boxed, hash, last_number, math_verify or reasoning_gym";

}  // namespace pion::lab
