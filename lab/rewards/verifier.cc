// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/verifier.h"

#include <cmath>
#include <iostream>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "lab/files/printable.h"
#include "lab/rewards/answer.h"
#include "lab/rewards/verifier_layers.h"
#include "lab/rewards/worker_verifier.h"

namespace pion::lab {
namespace {

using Extract = std::optional<std::string_view> (*)(std::string_view);

// What the form asks for is compared; a response without the form is looked at once more.
class BuiltInVerifier : public Verifier {
 public:
  BuiltInVerifier(Extract extract, const RewardWeights& weights)
      : extract_(extract), weights_(weights) {}

  std::vector<Verdict> judge(std::span<const Attempt> attempts) override {
    std::vector<Verdict> verdicts;
    verdicts.reserve(attempts.size());
    for (const Attempt& attempt : attempts) verdicts.push_back(judge_one(attempt));
    return verdicts;
  }

 private:
  Verdict judge_one(const Attempt& attempt) const {
    Verdict verdict;
    if (const auto answer = extract_(attempt.response)) {
      verdict.formatted = true;
      verdict.correct = same_answer(*answer, attempt.reference);
    } else if (const auto number = last_number(attempt.response)) {
      verdict.right_unformatted = same_answer(*number, attempt.reference);
    }
    verdict.reward = weights_.correct * (verdict.correct ? 1 : 0) +
                     weights_.format * (verdict.formatted ? 1 : 0);
    return verdict;
  }

  Extract extract_;
  RewardWeights weights_;
};

void check(const VerifierOptions& options) {
  const auto require = [](bool holds, const char* what, double value) {
    if (holds) return;
    std::ostringstream message;
    message << "make_verifier: " << what << ", got " << value;
    throw std::invalid_argument(message.str());
  };
  require(std::isfinite(options.weights.correct), "weights.correct must be finite",
          options.weights.correct);
  require(std::isfinite(options.weights.format), "weights.format must be finite",
          options.weights.format);
  require(std::isfinite(options.failed_reward), "failed_reward must be finite",
          options.failed_reward);
  require(options.timeout_seconds > 0 && std::isfinite(options.timeout_seconds),
          "timeout_seconds must be positive", options.timeout_seconds);
  require(options.gigabytes > 0 && std::isfinite(options.gigabytes),
          "gigabytes must be positive", options.gigabytes);
  require(options.workers >= 1 && options.workers <= 64, "workers must be in [1, 64]",
          options.workers);
}

// my_module:score, my.package.module:score
bool names_a_function(const std::string& name) {
  const std::size_t colon = name.find(':');
  return colon != std::string::npos && colon > 0 && colon + 1 < name.size() &&
         name.find(':', colon + 1) == std::string::npos && name[0] != '-';
}

}  // namespace

bool is_built_in(const std::string& name) {
  return name == "boxed" || name == "hash" || name == "last_number" ||
         name == "math_verify" || name == "reasoning_gym";
}

std::unique_ptr<Verifier> make_verifier(const std::string& name,
                                        const VerifierOptions& options) {
  check(options);
  if (!options.answer_after.empty()) {
    VerifierOptions whole = options;
    whole.answer_after.clear();
    return after_mark(make_verifier(name, whole), options.answer_after);
  }
  if (name == "boxed")
    return any_reference(std::make_unique<BuiltInVerifier>(last_boxed, options.weights));
  if (name == "hash")
    return any_reference(
        std::make_unique<BuiltInVerifier>(after_hashes, options.weights));
  if (name == "last_number")
    return any_reference(std::make_unique<BuiltInVerifier>(last_number, options.weights));
  if (!is_built_in(name) && !name.starts_with("reasoning_gym+") &&
      !names_a_function(name))
    throw std::invalid_argument(
        "make_verifier: must be boxed, hash, last_number, math_verify, reasoning_gym or "
        "module:function, got \"" +
        name + "\"");
  VerifierOptions with_warn = options;
  if (!with_warn.warn)
    with_warn.warn = [](const std::string& text) {
      std::cerr << "warning: " << printable(text) << '\n';
    };
  auto worker =
      make_worker_verifier(name, reward_worker_command(name, options), with_warn);
  return name == "math_verify" ? any_reference(std::move(worker)) : std::move(worker);
}

}  // namespace pion::lab
