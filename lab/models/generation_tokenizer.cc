// SPDX-License-Identifier: Apache-2.0
#include "lab/models/generation_tokenizer.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "lab/run/python_program.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

constexpr double kStartSeconds = 120;  // importing transformers on a cold disk
constexpr double kAnswerSeconds = 60;

std::vector<std::string> command(const fs::path& folder) {
  const std::string file = "pion/tokenizer_worker.py";
  return {python_program(), (python_folder(file) / file).string(), folder.string()};
}

}  // namespace

Tokenizer::Tokenizer(const fs::path& folder)
    : folder_(folder.string()), worker_(command(folder)) {}

// The field `wanted` of the answer, as JSON.
std::string Tokenizer::ask(const std::string& request, const char* wanted) {
  const auto fail = [&](const std::string& what) {
    throw std::invalid_argument("tokenizer of " + folder_ + ": " + what);
  };
  const Exchange exchange = worker_.running() ? worker_.ask(request, kAnswerSeconds)
                                              : worker_.start(kStartSeconds, request);
  if (exchange.failure != Failure::kNone)
    fail("the process that runs it " + exchange.detail +
         "; PION_PYTHON names the Python that has transformers");
  const auto reply = nlohmann::json::parse(exchange.line, nullptr, false);
  if (!reply.is_object()) fail("its answer must be a JSON object, got " + exchange.line);
  if (reply.contains("error") && reply["error"].is_string())
    fail(reply["error"].get<std::string>());
  if (!reply.contains(wanted))
    fail(std::string("its answer must hold ") + wanted + ", got " + exchange.line);
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
