// SPDX-License-Identifier: Apache-2.0
#include "lab/models/generation_tokenizer.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "lab/rewards/confinement.h"
#include "lab/run/python_program.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

constexpr double kStartSeconds = 120;  // importing transformers on a cold disk
constexpr double kAnswerSeconds = 60;
constexpr double kGigabytes = 8;  // transformers with torch takes one

ConfinedCommand command(const fs::path& folder) {
  const std::string file = "pion/tokenizer_worker.py";
  return confined_python({(python_folder(file) / file).string(), folder.string()},
                         Permission::kNothing, kGigabytes);
}

}  // namespace

Tokenizer::Tokenizer(const fs::path& folder) : folder_(folder.string()) {}

Exchange Tokenizer::exchange(const std::string& request) {
  if (worker_ != nullptr && worker_->running())
    return worker_->ask(request, kAnswerSeconds);
  const ConfinedCommand confined = command(folder_);
  note_ = confinement_note(confined);
  worker_ = std::make_unique<Worker>(confined.command);
  return worker_->start(kStartSeconds, request);
}

// The field `wanted` of the answer, as JSON.
std::string Tokenizer::ask(const std::string& request, const char* wanted) {
  const auto fail = [&](const std::string& what) {
    throw std::invalid_argument("tokenizer of " + folder_ + ": " + what);
  };
  const Exchange answer = exchange(request);
  if (answer.failure != Failure::kNone)
    fail("the process that runs it " + answer.detail +
         "; PION_PYTHON names the Python that has transformers" + note_);
  const auto reply = nlohmann::json::parse(answer.line, nullptr, false);
  if (!reply.is_object()) fail("its answer must be a JSON object, got " + answer.line);
  if (reply.contains("error") && reply["error"].is_string()) {
    const auto error = reply["error"].get<std::string>();
    fail(error + (error.starts_with("cannot be confined") ? note_ : ""));
  }
  if (!reply.contains(wanted))
    fail(std::string("its answer must hold ") + wanted + ", got " + answer.line);
  return reply[wanted].dump();
}

std::vector<std::int64_t> Tokenizer::encode(const std::string& text) {
  return tokens_of(text, /*chat=*/false);
}

std::vector<std::int64_t> Tokenizer::encode_chat(const std::string& text) {
  return tokens_of(text, /*chat=*/true);
}

std::vector<std::int64_t> Tokenizer::tokens_of(const std::string& text, bool chat) {
  std::string request;
  try {
    request = nlohmann::json{{"encode", text}, {"chat", chat}}.dump();
  } catch (const nlohmann::json::exception&) {
    throw std::invalid_argument("tokenizer of " + folder_ + ": a text must be UTF-8");
  }
  const auto tokens = nlohmann::json::parse(ask(request, "tokens"));
  std::vector<std::int64_t> found;
  for (const auto& token : tokens) {
    if (!token.is_number_integer())
      throw std::invalid_argument("tokenizer of " + folder_ +
                                  ": tokens must be integers");
    found.push_back(token.get<std::int64_t>());
  }
  return found;
}

std::string Tokenizer::decode(std::span<const std::int64_t> tokens) {
  const nlohmann::json request = {{"decode", std::vector(tokens.begin(), tokens.end())}};
  const auto text = nlohmann::json::parse(ask(request.dump(), "text"));
  if (!text.is_string())
    throw std::invalid_argument("tokenizer of " + folder_ + ": text must be a text");
  return text.get<std::string>();
}

}  // namespace pion::lab
