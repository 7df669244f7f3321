// SPDX-License-Identifier: Apache-2.0
#include "lab/data/arithmetic.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <stdexcept>

#include "lab/data/arithmetic_kind.h"
#include "lab/data/arithmetic_tokenizer.h"
#include "lab/data/permutation.h"

namespace pion::lab {
namespace {

// One kind's problems: the numbers in the order of their hash, the first of them held
// out.
class KindProblems {
 public:
  KindProblems(const std::string& pattern, const ArithmeticOptions& options)
      : kind_(pattern), hash_(kind_.number_choices(), kind_.numbers_key()) {
    const std::uint64_t all = kind_.number_choices();
    held_out_ = static_cast<std::uint64_t>(
        std::llround(options.held_out * static_cast<double>(all)));
    if (held_out_ == 0 || held_out_ == all)
      throw std::invalid_argument(
          "make_arithmetic: held_out must leave both splits a problem; of the " +
          std::to_string(all) + " choices of numbers of \"" + pattern +
          "\" it holds out " + std::to_string(held_out_));
    for (const Split split : {Split::kTrain, Split::kHeldOut})
      orders_.emplace_back(size(split), mix_bits(options.seed) + kind_.numbers_key());
  }

  std::uint64_t size(Split split) const {
    const std::uint64_t numbers =
        split == Split::kHeldOut ? held_out_ : kind_.number_choices() - held_out_;
    return numbers * kind_.operator_choices();
  }

  std::string problem(Split split, std::uint64_t index) const {
    const std::uint64_t shuffled = orders_[split == Split::kHeldOut](index);
    const std::uint64_t rank = shuffled / kind_.operator_choices();
    const std::uint64_t hashed = split == Split::kHeldOut ? rank : held_out_ + rank;
    return kind_.problem(hash_.inverse(hashed), shuffled % kind_.operator_choices());
  }

  std::size_t length() const { return kind_.length(); }

 private:
  ArithmeticKind kind_;
  Permutation hash_;  // numbers -> hash
  std::uint64_t held_out_;
  std::vector<Permutation> orders_;  // of train and held out, by seed
};

// Uniform in [0, 1), by problem: 53 bits are a double's.
class TeacherChance {
 public:
  TeacherChance(std::uint64_t seed, const std::string& problem) : state_(mix_bits(seed)) {
    for (const char c : problem)
      state_ = mix_bits(state_ ^ static_cast<unsigned char>(c));
  }
  double draw() {
    state_ += 0x9e3779b97f4a7c15u;
    return static_cast<double>(mix_bits(state_) >> 11) * 0x1p-53;
  }

 private:
  std::uint64_t state_;
};

struct Worked {
  std::string solution;  // what the teacher writes
  std::int64_t answer;   // the truth
};

Worked work(const std::string& problem, const ArithmeticOptions& options) {
  TeacherChance chance(options.seed, problem);
  const char* at = problem.data();
  const char* const end = at + problem.size();
  const auto number = [&] {
    std::int64_t value = 0;
    at = std::from_chars(at, end, value).ptr;
    return value;
  };
  std::string solution;
  std::int64_t written = number();
  std::int64_t answer = written;
  while (at != end) {
    const char op = *at++;
    const std::int64_t right = number();
    const bool forgets = chance.draw() < options.forget_carry;
    const std::int64_t result = compute_line(written, op, right, forgets);
    if (!solution.empty()) solution += ',';
    solution += std::to_string(written) + op + std::to_string(right) + '=' +
                std::to_string(result);
    written = result;
    answer = op == '+' ? answer + right : answer - right;
  }
  if (chance.draw() >= options.unboxed)
    solution += ",\\boxed{" + std::to_string(written) + "}";
  return {solution, answer};
}

class Arithmetic : public ProblemSet {
 public:
  explicit Arithmetic(const ArithmeticOptions& options)
      : options_(options), vocabulary_(arithmetic_vocabulary()) {
    for (const std::string& pattern : options.kinds)
      kinds_.emplace_back(pattern, options);
  }

  std::int64_t size(Split split) const override {
    std::uint64_t largest = 0;
    for (const KindProblems& kind : kinds_) largest = std::max(largest, kind.size(split));
    return static_cast<std::int64_t>(largest * kinds_.size());
  }

  Problem problem(Split split, std::int64_t index) const override {
    if (index < 0 || index >= size(split))
      throw std::invalid_argument("ProblemSet::problem: index must be in [0, " +
                                  std::to_string(size(split)) + "), got " +
                                  std::to_string(index));
    const auto turn = static_cast<std::uint64_t>(index) / kinds_.size();
    const KindProblems& kind = kinds_[static_cast<std::uint64_t>(index) % kinds_.size()];
    const std::string text = kind.problem(split, turn % kind.size(split));
    const Worked worked = work(text, options_);
    Problem problem{.prompt = arithmetic_tokens(text + ":"),
                    .solution = arithmetic_tokens(worked.solution),
                    .answer = std::to_string(worked.answer),
                    .extra = "",
                    .text = text + ":"};
    problem.solution.push_back(kArithmeticStop);
    return problem;
  }

  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::vector<std::int64_t> stop_tokens() const override { return {kArithmeticStop}; }
  std::optional<std::int64_t> pad_token() const override { return kArithmeticPad; }
  std::string verifier() const override { return "boxed"; }
  std::int64_t longest_prompt() const override {
    std::size_t longest = 0;
    for (const KindProblems& kind : kinds_)
      longest = std::max(longest, kind.length() + 1);
    return static_cast<std::int64_t>(longest);
  }
  std::string name() const override { return "arithmetic"; }
  std::string fingerprint() const override {
    return tokenizer_fingerprint(arithmetic_tokenizer_files().front().second, name());
  }

 private:
  ArithmeticOptions options_;
  Vocabulary vocabulary_;
  std::vector<KindProblems> kinds_;
};

}  // namespace

std::unique_ptr<ProblemSet> make_arithmetic(const ArithmeticOptions& options) {
  const auto require = [](bool holds, const char* what, double value) {
    if (!holds)
      throw std::invalid_argument(std::string("make_arithmetic: ") + what + ", got " +
                                  std::to_string(value));
  };
  const auto fraction = [](double x) { return x >= 0 && x <= 1; };
  require(fraction(options.forget_carry), "forget_carry must be in [0, 1]",
          options.forget_carry);
  require(fraction(options.unboxed), "unboxed must be in [0, 1]", options.unboxed);
  require(options.held_out > 0 && options.held_out < 1, "held_out must be in (0, 1)",
          options.held_out);
  if (options.kinds.empty() ||
      options.kinds.size() > 8)  // a kind has at most 2^59 problems
    throw std::invalid_argument("make_arithmetic: kinds must name 1 to 8 patterns, got " +
                                std::to_string(options.kinds.size()));
  return std::make_unique<Arithmetic>(options);
}

}  // namespace pion::lab
