// SPDX-License-Identifier: Apache-2.0
// Verifiers: is an answer right, and does it have the form that was asked for?
#pragma once

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
  std::string_view extra;      // Problem::extra
};

struct Verdict {
  bool correct = false;    // the formatted answer equals the reference
  bool formatted = false;  // the answer stands where it was asked for (in a box, after ####)
  bool right_unformatted = false;  // right, but only when the form is ignored (last number)
  double reward = 0;               // correctness and format, weighted; finite
};

// How a verdict's parts become the reward.
struct RewardWeights {
  double correct = 1.0;
  double format = 0.0;
};

class Verifier {
 public:
  virtual ~Verifier() = default;
  virtual std::vector<Verdict> judge(std::span<const Attempt> attempts) = 0;
  // Attempts since the start whose verdict a worker failed to give (hung, died, rubbish).
  virtual std::int64_t failures() const { return 0; }
};

// name: "boxed", "hash" (####), "last_number": built in, numbers compared exactly;
// "math_verify": LaTeX by the package of that name; "reasoning_gym"; "my_module:score": a
// user's own function. The last three run in a worker process. Throws std::invalid_argument
// for an unknown name or a worker that does not start (with its message).
struct VerifierOptions {
  RewardWeights weights;
  double timeout_seconds = 5.0;  // of one attempt in a worker
  double failed_reward = 0.0;    // reward of an attempt whose worker failed
};
std::unique_ptr<Verifier> make_verifier(const std::string& name, const VerifierOptions& options);

}  // namespace pion::lab
