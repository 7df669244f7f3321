// SPDX-License-Identifier: Apache-2.0
// The page's first lines, in words.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "lab/report/comparison.h"

namespace pion::lab::report {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string result;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) result += i + 1 == words.size() ? " and " : ", ";
    result += words[i];
  }
  return result;
}

std::string printed(const char* format, int digits, double value) {
  char buffer[400];  // %.*f of 1e308 has 309 digits before the point
  std::snprintf(buffer, sizeof buffer, format, digits, value);
  return buffer;
}

std::string on_task(const Comparison& comparison) {
  const std::string& name = comparison.task.empty() ? comparison.recipe : comparison.task;
  return name.empty() ? "" : " on " + name;
}

// Three digits without trailing zeros.
std::string brief(double value) { return printed("%.*g", 3, value); }

// "; a random policy scores 0.2", or nothing.
std::string baseline(double untrained, double random) {
  if (std::isfinite(random)) {
    return "; a random policy scores " + brief(random);
  }
  if (std::isfinite(untrained)) {
    return "; before training the score is " + brief(untrained);
  }
  return "";
}

// "mean ± 95 % CI over 3 seeds", or what fits fewer.
std::string basis(const std::vector<const Entrant*>& ranked) {
  int fewest = ranked.front()->score.count, most = fewest;
  for (const Entrant* entrant : ranked) {
    fewest = std::min(fewest, entrant->score.count);
    most = std::max(most, entrant->score.count);
  }
  if (most == 1) return "one seed each: no interval";
  const std::string count = fewest == most
                                ? std::to_string(most)
                                : std::to_string(fewest) + " to " + std::to_string(most);
  return "mean ± 95 % CI over " + count + " seeds";
}

// How a run ended that learned nothing, as a verb; else "".
std::string odd_ending(const std::string& status) {
  if (status == "diverged" || status == "collapsed") return status;
  return status == "untrained" ? "trained nothing" : "";
}

// " Pion: 1 of 3 runs diverged.", or nothing. Of an entrant without a tuned rate all runs
// count.
std::string odd_endings(const Comparison& comparison) {
  std::string text;
  for (const Entrant& entrant : comparison.entrants) {
    std::vector<std::string> statuses;
    for (const int i : entrant.runs) statuses.push_back(comparison.runs[i].status);
    if (entrant.runs.empty())
      for (const ComparedRun& run : comparison.runs)
        if (run.optimizer == entrant.name) statuses.push_back(run.status);
    for (const char* status : {"diverged", "collapsed", "untrained"})
      if (const auto count = std::count(statuses.begin(), statuses.end(), status))
        text += " " + label(entrant.name) + ": " + std::to_string(count) + " of " +
                std::to_string(statuses.size()) + " runs " + odd_ending(status) + ".";
  }
  return text;
}

Outcome of_run(const Comparison& comparison, double untrained, double random) {
  const ComparedRun& run = comparison.runs.front();
  const std::string name = label(run.optimizer), where = on_task(comparison);
  const std::string score = comparison.score.empty() ? "score" : comparison.score;
  if (const std::string odd = odd_ending(run.status); !odd.empty()) {
    return {name + " " + odd + where,
            std::isfinite(run.score)
                ? score + " at the end of one run: " + format_score(run.score, kNan) +
                      baseline(untrained, random) + "."
                : "The run has no score.",
            ""};
  }
  if (std::isfinite(run.score)) {
    return {name + " scored " + format_score(run.score, kNan) + where,
            score + " at the end of one run" + baseline(untrained, random) + ".", ""};
  }
  if (run.status == "failed")
    return {name + " failed" + where, "The run ended with an error.", ""};
  return {"This run" + (name == "optimizer" ? "" : " of " + name) + where +
              " has not finished",
          "The page shows what it has written so far.", ""};
}

std::string verdict(const std::vector<const Entrant*>& ranked, bool& separated) {
  separated = false;
  if (ranked.size() < 2) return "";
  const Entrant &first = *ranked[0], &second = *ranked[1];
  const Interval gap = welch_difference(first.scores, second.scores);
  if (gap.count < 2) return "With one seed there is no telling luck from skill.";
  separated = std::abs(gap.mean) > gap.half_width;
  const std::string size = format_score(std::abs(gap.mean), gap.half_width);
  const std::string pair = label(first.name) + " over " + label(second.name);
  if (separated) {
    return "The lead of " + pair + ", " + size +
           ", is larger than the spread over seeds.";
  }
  return "The lead of " + pair + ", " + size +
         ", is within the spread over seeds: it shows no order between them.";
}

}  // namespace

FormattedScore format_parts(double mean, double half_width) {
  if (!std::isfinite(mean)) return {"–", "–", ""};
  const bool interval = std::isfinite(half_width);
  const double size = std::max(std::abs(mean), interval ? half_width : 0.0);
  std::string exponent;
  if (size != 0.0 && (size >= 1e6 || size < 1e-2)) {
    const int power = int(std::floor(std::log10(size)));
    exponent = "e";
    exponent += std::to_string(power);
    // in two steps: 10^-310 is no normal double
    mean = mean / std::pow(10.0, power / 2) / std::pow(10.0, power - power / 2);
    half_width =
        half_width / std::pow(10.0, power / 2) / std::pow(10.0, power - power / 2);
  }
  int decimals = 0;
  if (interval && half_width > 0.0) {
    const double power = std::floor(std::log10(half_width));
    // one digit of the half width; two if it starts with 1
    const bool leading_one = half_width < 2.0 * std::pow(10.0, power);
    decimals = int(leading_one ? 1 - power : -power);
    // but two of the mean, which a wide interval would leave at 0 or 1
    if (mean != 0.0) {
      const int two = 1 - int(std::floor(std::log10(std::abs(mean))));
      decimals = std::max(decimals, std::min(two, decimals + 2));
    }
    decimals = std::clamp(decimals, 0, 6);
  } else if (mean != 0.0) {
    decimals = std::clamp(2 - int(std::floor(std::log10(std::abs(mean)))), 0, 6);
  }
  return {printed("%.*f", decimals, mean),
          interval ? printed("%.*f", decimals, half_width) : "–", exponent};
}

std::string format_score(double mean, double half_width) {
  const FormattedScore parts = format_parts(mean, half_width);
  if (!std::isfinite(mean) || !std::isfinite(half_width))
    return parts.mean + parts.exponent;
  const std::string both = parts.mean + " ± " + parts.half_width;
  return parts.exponent.empty() ? both : "(" + both + ")" + parts.exponent;
}

Outcome outcome(const Comparison& comparison, double untrained, double random) {
  if (comparison.single_run) return of_run(comparison, untrained, random);
  std::vector<const Entrant*> ranked;
  std::vector<std::string> without, numbers;
  for (const Entrant& entrant : comparison.entrants) {
    if (entrant.score.count > 0)
      ranked.push_back(&entrant);
    else
      without.push_back(label(entrant.name));
  }
  if (ranked.empty()) {
    return {"No run" + on_task(comparison) + " has a score yet",
            "The page shows what the runs have written so far." + odd_endings(comparison),
            ""};
  }
  std::stable_sort(ranked.begin(), ranked.end(), [&](const Entrant* a, const Entrant* b) {
    return comparison.higher_is_better ? a->score.mean > b->score.mean
                                       : a->score.mean < b->score.mean;
  });
  for (const Entrant* entrant : ranked) {
    numbers.push_back(label(entrant->name) + (numbers.empty() ? " scored " : " ") +
                      format_score(entrant->score.mean, entrant->score.half_width));
  }
  Outcome result;
  bool separated = false;
  result.verdict = verdict(ranked, separated);
  result.numbers =
      joined(numbers) + " (" + basis(ranked) + ")" + baseline(untrained, random) + ".";
  if (!without.empty()) result.numbers += " No score from " + joined(without) + ".";
  result.numbers += odd_endings(comparison);

  const std::string most = comparison.higher_is_better ? "highest" : "lowest";
  std::vector<std::string> level;  // the first, and who cannot be told from it
  for (const Entrant* entrant : ranked) {
    const Interval gap = welch_difference(ranked.front()->scores, entrant->scores);
    const bool equal = entrant->score.mean == ranked.front()->score.mean;
    if (equal || (gap.count > 1 && std::abs(gap.mean) <= gap.half_width))
      level.push_back(label(entrant->name));
  }
  if (ranked.size() == 1) {
    result.headline = "Only " + level.front() + " has a score" + on_task(comparison);
    return result;
  }
  result.headline = level.size() > 1
                        ? joined(level) + " are level" + on_task(comparison)
                        : level.front() + " scored " + most + on_task(comparison);
  return result;
}

}  // namespace pion::lab::report
