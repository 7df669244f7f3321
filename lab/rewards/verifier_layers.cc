// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/verifier_layers.h"

#include <utility>

#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

class AnyReference : public Verifier {
 public:
  explicit AnyReference(std::unique_ptr<Verifier> verifier)
      : verifier_(std::move(verifier)) {}

  std::vector<Verdict> judge(std::span<const Attempt> attempts) override {
    std::vector<Verdict> verdicts = verifier_->judge(attempts);
    std::vector<std::vector<std::string>> others;  // by attempt
    for (const Attempt& attempt : attempts) others.push_back(alternatives(attempt.extra));
    for (std::size_t k = 0;; ++k) {
      std::vector<std::size_t> asked;
      std::vector<Attempt> again;
      for (std::size_t i = 0; i < attempts.size(); ++i) {
        if (right(verdicts[i]) || others[i].size() <= k) continue;
        asked.push_back(i);
        again.push_back(attempts[i]);
        again.back().reference = others[i][k];
      }
      if (asked.empty()) return verdicts;
      const std::vector<Verdict> more = verifier_->judge(again);
      for (std::size_t j = 0; j < asked.size(); ++j)
        if (right(more[j])) verdicts[asked[j]] = more[j];
    }
  }
  std::int64_t failures() const override { return verifier_->failures(); }

 private:
  static bool right(const Verdict& verdict) {
    return verdict.correct || verdict.right_unformatted;
  }

  std::unique_ptr<Verifier> verifier_;
};

class AfterMark : public Verifier {
 public:
  AfterMark(std::unique_ptr<Verifier> verifier, std::string mark)
      : verifier_(std::move(verifier)), mark_(std::move(mark)) {}

  std::vector<Verdict> judge(std::span<const Attempt> attempts) override {
    std::vector<Verdict> verdicts(attempts.size());
    std::vector<std::size_t> asked;
    std::vector<Attempt> shown;
    for (std::size_t i = 0; i < attempts.size(); ++i) {
      const std::size_t at = attempts[i].response.rfind(mark_);
      if (at == std::string_view::npos) continue;
      asked.push_back(i);
      shown.push_back(attempts[i]);
      shown.back().response.remove_prefix(at + mark_.size());
    }
    const std::vector<Verdict> judged = verifier_->judge(shown);
    for (std::size_t j = 0; j < asked.size(); ++j) verdicts[asked[j]] = judged[j];
    return verdicts;
  }
  std::int64_t failures() const override { return verifier_->failures(); }

 private:
  std::unique_ptr<Verifier> verifier_;
  std::string mark_;
};

}  // namespace

std::vector<std::string> alternatives(std::string_view extra) {
  // most problems have none, and JSON is slow to read
  if (extra.find("\"alternatives\"") == std::string_view::npos) return {};
  const auto value = try_json<nlohmann::json>(extra);
  if (!value.is_object() || !value.contains("alternatives") ||
      !value["alternatives"].is_array())
    return {};
  std::vector<std::string> found;
  for (const auto& each : value["alternatives"])
    if (each.is_string()) found.push_back(each.get<std::string>());
  return found;
}

std::unique_ptr<Verifier> any_reference(std::unique_ptr<Verifier> verifier) {
  return std::make_unique<AnyReference>(std::move(verifier));
}

std::unique_ptr<Verifier> after_mark(std::unique_ptr<Verifier> verifier,
                                     std::string mark) {
  return std::make_unique<AfterMark>(std::move(verifier), std::move(mark));
}

}  // namespace pion::lab
