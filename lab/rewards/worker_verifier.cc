// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/worker_verifier.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>

#include "lab/files/python_program.h"
#include "lab/rewards/answer.h"
#include "lab/rewards/worker.h"
#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

using Json = nlohmann::json;
constexpr double kStartSeconds = 120;  // imports of sympy from a cold disk
// beyond the worker's own limit, which spares a restart
constexpr double kGraceSeconds = 1;

std::string request_line(std::int64_t id, const Attempt& attempt) {
  Json request = {{"id", id},
                  {"prompt", attempt.prompt},
                  {"response", attempt.response},
                  {"reference", attempt.reference},
                  {"extra", attempt.extra},
                  {"boxed", nullptr}};
  if (const auto boxed = last_boxed(attempt.response)) request["boxed"] = *boxed;
  // tokens may end in the middle of a character: U+FFFD then
  return request.dump(-1, ' ', true, Json::error_handler_t::replace);
}

class WorkerVerifier : public Verifier {
 public:
  WorkerVerifier(std::string name, const ConfinedCommand& command,
                 const VerifierOptions& options)
      : name_(std::move(name)), options_(options), note_(confinement_note(command)) {
    for (int i = 0; i < options.workers; ++i)
      slots_.push_back(std::make_unique<Slot>(command.command));
    for (const auto& slot : slots_) {
      const std::string problem = start(slot->worker);
      if (!problem.empty())
        throw std::invalid_argument("make_verifier: the worker of \"" + name_ +
                                    "\" must start, got: " + problem + note_);
    }
  }

  std::vector<Verdict> judge(std::span<const Attempt> attempts) override;
  std::int64_t failures() const override { return failures_; }

 private:
  struct Slot {
    explicit Slot(const WorkerCommand& command) : worker(command) {}
    Worker worker;
    int in_a_row = 0;  // failures of the process
  };

  static std::string start(Worker& worker);
  Verdict judge_one(Slot& slot, std::int64_t id, const Attempt& attempt);
  Verdict failed(Failure failure, std::int64_t id, const std::string& detail);
  void work(Slot& slot, std::span<const Attempt> attempts,
            std::vector<Verdict>& verdicts);
  void tell();

  std::string name_;
  VerifierOptions options_;
  std::string note_;  // how it is confined, after a complaint
  std::vector<std::unique_ptr<Slot>> slots_;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<std::int64_t> failures_ = 0;
  std::mutex mutex_;  // of what follows
  std::set<Failure> told_;
  std::vector<std::string> warnings_;
};

// "" or why the worker is not ready.
std::string WorkerVerifier::start(Worker& worker) {
  const Exchange first = worker.start(kStartSeconds);
  if (first.failure != Failure::kNone) return first.detail;
  const Json line = try_json<Json>(first.line);
  if (line.is_object() && line.contains("ready")) return "";
  worker.stop();
  const bool says =
      line.is_object() && line.contains("error") && line["error"].is_string();
  return says ? line["error"].get<std::string>()
              : "the first line \"" + shown_line(first.line) + "\"";
}

const char* what_happened(Failure failure) {
  switch (failure) {
    case Failure::kHung:
      return "took longer than its time limit";
    case Failure::kDied:
      return "died";
    case Failure::kRubbish:
      return "sent something that is no verdict";
    case Failure::kRaised:
      return "raised an error";
    case Failure::kNotAsked:
      return "was not asked any more";
    default:
      return "did not start again";
  }
}

Verdict WorkerVerifier::failed(Failure failure, std::int64_t id,
                               const std::string& detail) {
  ++failures_;
  const std::lock_guard lock(mutex_);
  if (told_.insert(failure).second)
    warnings_.push_back("the reward \"" + name_ + "\" " + what_happened(failure) +
                        " on attempt " + std::to_string(id) + " of a batch (" + detail +
                        "); that attempt's reward is " +
                        Json(options_.failed_reward).dump() +
                        ", and so for every other one; this is said once" + note_);
  return {.failed = true, .reward = options_.failed_reward};
}

Verdict WorkerVerifier::judge_one(Slot& slot, std::int64_t id, const Attempt& attempt) {
  if (!slot.worker.running()) {
    const std::string problem = start(slot.worker);
    if (!problem.empty()) {
      ++slot.in_a_row;
      return failed(Failure::kDidNotStart, id, problem);
    }
  }
  const Exchange exchange = slot.worker.ask(request_line(id, attempt),
                                            options_.timeout_seconds + kGraceSeconds);
  if (exchange.failure != Failure::kNone) {
    ++slot.in_a_row;
    return failed(exchange.failure, id, exchange.detail);
  }
  const Reply reply = read_reply(exchange.line, id);
  if (!reply.problem.empty() && !reply.raised) {
    slot.worker.stop();  // whoever sends rubbish may send more of it
    ++slot.in_a_row;
    return failed(Failure::kRubbish, id, reply.problem);
  }
  slot.in_a_row = 0;
  if (reply.raised)
    return failed(reply.late ? Failure::kHung : Failure::kRaised, id, reply.problem);
  Verdict verdict = reply.verdict;
  verdict.reward = options_.weights.correct * reply.score +
                   options_.weights.format * (verdict.formatted ? 1 : 0);
  // rewards become float32; the comparison is false for NaN too
  if (!(std::abs(verdict.reward) <= std::numeric_limits<float>::max()))
    return failed(
        Failure::kRaised, id,
        "the weighted score " + Json(verdict.reward).dump() + " is no finite float32");
  return verdict;
}

void WorkerVerifier::work(Slot& slot, std::span<const Attempt> attempts,
                          std::vector<Verdict>& verdicts) {
  bool asked = false;
  for (std::size_t i = next_++; i < attempts.size(); i = next_++) {
    const auto id = static_cast<std::int64_t>(i);
    verdicts[i] = slot.in_a_row >= kFailuresInARow && asked
                      ? failed(Failure::kNotAsked, id,
                               std::to_string(slot.in_a_row) + " failures in a row")
                      : judge_one(slot, id, attempts[i]);
    asked = true;
  }
}

void WorkerVerifier::tell() {
  std::vector<std::string> warnings;
  {
    const std::lock_guard lock(mutex_);
    warnings.swap(warnings_);
  }
  for (const std::string& warning : warnings) options_.warn(warning);
}

std::vector<Verdict> WorkerVerifier::judge(std::span<const Attempt> attempts) {
  std::vector<Verdict> verdicts(attempts.size());
  next_ = 0;
  {
    std::vector<std::jthread> threads;
    try {
      for (std::size_t i = 1; i < std::min(slots_.size(), attempts.size()); ++i)
        threads.emplace_back([&, i] { work(*slots_[i], attempts, verdicts); });
    } catch (const std::exception&) {
      // no more threads: those that there are take all attempts
    }
    work(*slots_[0], attempts, verdicts);
  }
  tell();
  return verdicts;
}

}  // namespace

ConfinedCommand reward_worker_command(const std::string& name,
                                      const VerifierOptions& options) {
  const std::string file = "pion/reward_worker.py";
  const bool of_a_user = name.find(':') != std::string::npos;
  return confined_python(
      {(python_folder(file) / file).string(), name, "--timeout",
       std::to_string(options.timeout_seconds),
       "--data-sets=" +
           Json(options.data_sets).dump(-1, ' ', true, Json::error_handler_t::replace)},
      of_a_user ? Permission::kPrograms : Permission::kNothing, options.gigabytes);
}

std::unique_ptr<Verifier> make_worker_verifier(const std::string& name,
                                               const ConfinedCommand& command,
                                               const VerifierOptions& options) {
  return std::make_unique<WorkerVerifier>(name, command, options);
}

}  // namespace pion::lab
