// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/workload.h"

#include <charconv>
#include <stdexcept>

namespace pion::bench {
namespace {

constexpr std::int64_t kLargestSide = 1 << 20, kMostBlocks = 1 << 16;  // typing errors
constexpr std::int64_t kMostEntries = std::int64_t{1} << 28;  // 1 GiB of f32 a tensor

[[noreturn]] void refuse(const std::string& text, const std::string& why) {
  throw std::invalid_argument(why + ", got \"" + text +
                              "\"; shapes read 128x1024, 8x128x1024, 8x1024x128:cols, "
                              "4*64x64, joined by +");
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::int64_t number(const std::string& digits, std::int64_t largest,
                    const std::string& text) {
  std::int64_t value = 0;
  const char* end = digits.data() + digits.size();
  const auto read = std::from_chars(digits.data(), end, value);
  if (read.ec != std::errc{} || read.ptr != end || value < 1 || value > largest)
    refuse(text, "every number must be in [1, " + std::to_string(largest) + "]");
  return value;
}

// One item between two "+".
void add_parameters(std::string item, const std::string& text,
                    std::vector<ParameterShape>& parameters) {
  std::int64_t copies = 1;
  if (const std::size_t star = item.find('*'); star != std::string::npos) {
    copies = number(item.substr(0, star), kMostBlocks, text);
    item.erase(0, star + 1);
  }
  ParameterShape shape;
  if (const std::size_t colon = item.find(':'); colon != std::string::npos) {
    if (item.substr(colon) != ":cols") refuse(text, "after \":\" must come cols");
    shape.axis = 1;
    item.erase(colon);
  }
  const std::vector<std::string> sides = split(item, 'x');
  if (sides.size() != 2 && sides.size() != 3)
    refuse(text, "a parameter must be ROWSxCOLS or HEADSxROWSxCOLS");
  if (sides.size() == 3) shape.heads = number(sides[0], kMostBlocks, text);
  shape.rows = number(sides[sides.size() - 2], kLargestSide, text);
  shape.cols = number(sides[sides.size() - 1], kLargestSide, text);
  if (static_cast<std::int64_t>(parameters.size()) + copies > kMostBlocks)
    refuse(text, "at most " + std::to_string(kMostBlocks) + " parameters can be stepped");
  parameters.insert(parameters.end(), static_cast<std::size_t>(copies), shape);
}

}  // namespace

std::int64_t Workload::entries() const {
  std::int64_t sum = 0;
  for (const ParameterShape& shape : parameters) sum += shape.entries();
  return sum;
}

std::int64_t Workload::blocks() const {
  std::int64_t sum = 0;
  for (const ParameterShape& shape : parameters) sum += shape.heads;
  return sum;
}

Workload read_workload(const std::string& text) {
  Workload workload{text, {}};
  for (const std::string& item : split(text, '+'))
    add_parameters(item, text, workload.parameters);
  if (workload.entries() > kMostEntries)
    refuse(text, "at most 2^28 numbers can be stepped");
  return workload;
}

std::vector<std::string> rule_labels() {
  return {"pion1",     "pion2", "pion3", "pion4", "pion5",
          "pion_auto", "muon",  "adamw", "sgd"};
}

Rule make_labelled_rule(const std::string& label) {
  // small, so that hours of steps on one gradient keep the weights near 1
  constexpr double kRate = 1e-6, kDecay = 0.01;
  const auto shared = [](auto rule) {
    rule.lr = kRate;
    rule.weight_decay = kDecay;
    return rule;
  };
  for (const int steps : {1, 2, 3, 4, 5}) {
    if (label != "pion" + std::to_string(steps)) continue;
    PionRule rule = shared(PionRule{});
    rule.promotion_steps = steps;
    return rule;
  }
  if (label == "pion_auto") return shared(PionRule{});
  if (label == "muon") return shared(MuonRule{});
  if (label == "adamw") return shared(AdamWRule{});
  if (label == "sgd") {  // LibTorch's decay is not decoupled: none on either side
    SgdRule rule;
    rule.lr = kRate;
    return rule;
  }
  const std::string near = nearest_name(label, rule_labels());
  throw std::invalid_argument(
      "a rule must be one of pion1 to pion5, pion_auto, muon, adamw, sgd, got \"" +
      label + "\"" + (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
}

std::vector<std::string> peer_names() {
  return {"optim_muon", "per_head_bf16", "plain_bf16",
          "addmm_bf16", "addmm_f32",     "fused"};
}

std::string_view precision_name(Precision precision) {
  switch (precision) {
    case Precision::kFast:
      return "fast";
    case Precision::kAccurate:
      return "accurate";
    case Precision::kF32:
      break;
  }
  return "f32";
}

Precision read_precision(const std::string& name) {
  for (const Precision each : {Precision::kFast, Precision::kAccurate, Precision::kF32})
    if (name == precision_name(each)) return each;
  throw std::invalid_argument("a precision must be one of fast, accurate, f32, got \"" +
                              name + "\"");
}

const Group& find_group(const std::string& name) {
  std::vector<std::string> names;
  for (const Group& group : groups()) {
    if (group.name == name) return group;
    names.push_back(group.name);
  }
  const std::string near = nearest_name(name, names);
  throw std::invalid_argument(
      "unknown group \"" + name + "\"" +
      (near.empty() ? "; --list names them" : "; did you mean \"" + near + "\"?"));
}

}  // namespace pion::bench
