// SPDX-License-Identifier: Apache-2.0
// Sample answers of a language model, before and after training.
#include "lab/report/page_data.h"

namespace pion::lab::report {
namespace {

constexpr std::size_t kProblems = 12;      // shown on the page; sample.json may hold more
constexpr std::size_t kCharacters = 1200;  // of one text: a page is no transcript

// At most kCharacters bytes, cut between characters.
std::string shortened(const std::string& whole) {
  if (whole.size() <= kCharacters) return whole;
  std::size_t end = kCharacters;
  while (end > 0 && (static_cast<unsigned char>(whole[end]) & 0xC0) == 0x80) --end;
  return whole.substr(0, end) + " …";
}

Json answer(const Json& from) {
  return {{"text", shortened(text(from, "text"))},
          {"correct", number(from, "correct") == 1.0},
          {"formatted", number(from, "formatted") == 1.0},
          {"right_unformatted", number(from, "right_unformatted") == 1.0}};
}

}  // namespace

// A row for every problem of the first sample; the others' answers are matched by prompt.
Json sample_answers(const Comparison& comparison,
                    const std::map<int, RunRecord>& records) {
  Json rows = Json::array();
  std::map<std::string, std::size_t> row_of;  // by prompt
  for (const Entrant& entrant : comparison.entrants) {
    const int run = best_run(comparison, entrant, records);
    if (run < 0) continue;
    const Json& sample = records.at(run).sample;
    if (text(sample, "kind") != "answers") continue;
    for (const Json& item : member(sample, "items")) {
      const std::string prompt = text(item, "prompt");
      if (!row_of.count(prompt)) {
        if (rows.size() == kProblems) continue;
        row_of[prompt] = rows.size();
        rows.push_back({{"prompt", shortened(prompt)},
                        {"reference", shortened(text(item, "reference"))},
                        {"before", answer(member(item, "before"))},
                        {"after", Json::array()}});
      }
      Json after = answer(member(item, "after"));
      after["optimizer"] = entrant.name;
      rows[row_of[prompt]]["after"].push_back(std::move(after));
    }
  }
  return rows;
}

}  // namespace pion::lab::report
