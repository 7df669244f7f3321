// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <sstream>

#include "lab/data/problem_set.h"

namespace pion::lab {
namespace {

constexpr std::int64_t kMeasured = 10000;  // problems whose lengths are looked at
constexpr std::size_t kExtraShown = 120;   // bytes

struct Lengths {
  std::int64_t shortest = 0, longest = 0, total = 0, count = 0;
  void add(std::size_t length) {
    const auto n = static_cast<std::int64_t>(length);
    shortest = count == 0 ? n : std::min(shortest, n);
    longest = std::max(longest, n);
    total += n;
    ++count;
  }
  std::string text() const {
    return std::to_string(shortest) + " to " + std::to_string(longest) + ", mean " +
           std::to_string(count == 0 ? 0 : (total + count / 2) / count);
  }
};

// One line per line of text, set in.
void write_indented(std::ostream& page, const std::string& label,
                    const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  page << "    " << label << "  ";
  for (bool first = true; std::getline(lines, line); first = false)
    page << (first ? "" : std::string(6 + label.size(), ' ')) << line << "\n";
  if (text.empty()) page << "\n";
}

void write_split(std::ostream& page, const ProblemSet& problems, Split split,
                 std::int64_t samples) {
  const std::int64_t size = problems.size(split);
  page << (split == Split::kTrain ? "train" : "held out") << ": " << size
       << " problems\n";
  Lengths prompts, solutions;
  for (std::int64_t i = 0; i < std::min(size, kMeasured); ++i) {
    const Problem problem = problems.problem(split, i);
    prompts.add(problem.prompt.size());
    if (!problem.solution.empty()) solutions.add(problem.solution.size());
  }
  if (size > kMeasured) page << "  of the first " << kMeasured << ":\n";
  page << "  prompt tokens " << prompts.text() << "\n  solution tokens "
       << (solutions.count == 0 ? "none" : solutions.text()) << "\n";
  for (std::int64_t i = 0; i < std::min(size, samples); ++i) {
    const Problem problem = problems.problem(split, i);
    const Vocabulary& vocabulary = problems.vocabulary();
    page << "  problem " << i << "\n";
    write_indented(page, "prompt  ",
                   vocabulary.decode(std::span<const std::int32_t>(problem.prompt)));
    write_indented(page, "solution",
                   vocabulary.decode(std::span<const std::int32_t>(problem.solution)));
    write_indented(page, "answer  ", problem.answer);
    if (!problem.extra.empty())
      write_indented(page, "extra   ",
                     problem.extra.size() <= kExtraShown
                         ? problem.extra
                         : problem.extra.substr(0, kExtraShown) + " ...");
  }
}

}  // namespace

std::string describe_problem_set(const ProblemSet& problems, std::int64_t samples) {
  std::ostringstream page;
  page << "problems    " << problems.name() << "\nverifier    " << problems.verifier()
       << "\nvocabulary  " << problems.vocabulary().size() << " tokens, fingerprint "
       << (problems.fingerprint().empty() ? "unknown" : problems.fingerprint())
       << "\nstop tokens";
  for (const std::int64_t token : problems.stop_tokens()) page << " " << token;
  page << ", padding ";
  if (const auto pad = problems.pad_token())
    page << *pad;
  else
    page << "none";
  page << "\n\n";
  for (const Split split : {Split::kTrain, Split::kHeldOut})
    write_split(page, problems, split, samples);
  return page.str();
}

}  // namespace pion::lab
