// SPDX-License-Identifier: Apache-2.0
#include "lab/models/generation_tokenizer.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "lab/files/python_program.h"
#include "lab/models/tokenizer_reply.h"
#include "lab/rewards/confinement.h"

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

void Tokenizer::fail(const std::string& what) const {
  const bool free = !what.starts_with("cannot be confined");
  throw std::invalid_argument("tokenizer of " + folder_ + ": " + what +
                              (free ? "" : note_));
}

std::string Tokenizer::ask(const std::string& request) {
  const Exchange answer = exchange(request);
  if (answer.failure != Failure::kNone)
    fail("the process that runs it " + answer.detail +
         "; PION_PYTHON names the Python that has transformers" + note_);
  return answer.line;
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
    fail("a text must be UTF-8");
  }
  const std::string line = ask(request);
  try {
    return read_tokens_reply(line);
  } catch (const std::invalid_argument& error) {
    fail(error.what());
  }
}

std::string Tokenizer::decode(std::span<const std::int64_t> tokens) {
  const nlohmann::json request = {{"decode", std::vector(tokens.begin(), tokens.end())}};
  const std::string line = ask(request.dump());
  try {
    return read_text_reply(line);
  } catch (const std::invalid_argument& error) {
    fail(error.what());
  }
}

}  // namespace pion::lab
