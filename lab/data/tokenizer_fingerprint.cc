// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "lab/data/problem_set.h"
#include "lab/files/fnv.h"
#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

using Json = nlohmann::json;

std::int64_t token_id(const Json& value) {
  const std::optional<std::int64_t> id = json_integer(value);
  if (!id || *id < 0)
    throw std::invalid_argument("a token's id must be a whole number >= 0, got " +
                                (value.is_number() ? value.dump() : value.type_name()));
  return *id;
}

// id -> token of the model's vocabulary and of the tokens added to it.
std::map<std::int64_t, std::string> all_tokens(const Json& tokenizer) {
  std::map<std::int64_t, std::string> tokens;
  const Json& vocabulary = tokenizer.at("model").at("vocab");
  if (vocabulary.is_array()) {  // Unigram: [token, score] in the order of ids
    for (std::size_t id = 0; id < vocabulary.size(); ++id)
      tokens[static_cast<std::int64_t>(id)] = vocabulary[id].at(0).get<std::string>();
  } else {
    if (!vocabulary.is_object())
      throw std::invalid_argument("its vocabulary is no object");
    for (const auto& [token, id] : vocabulary.items()) tokens[token_id(id)] = token;
  }
  if (const auto added = tokenizer.find("added_tokens"); added != tokenizer.end())
    for (const Json& each : *added)
      tokens[token_id(each.at("id"))] = each.at("content").get<std::string>();
  return tokens;
}

}  // namespace

std::string tokenizer_fingerprint(std::string_view tokenizer_json,
                                  const std::string& where) {
  std::map<std::int64_t, std::string> tokens;
  try {
    tokens = all_tokens(parse_json<Json>(tokenizer_json));
  } catch (const std::exception& error) {  // nlohmann's, or of the vocabulary
    throw std::invalid_argument(where + ": is no tokenizer.json: " + error.what());
  }
  Fnv hash;
  for (const auto& [id, token] : tokens) {
    hash.add(std::to_string(id));
    hash.add(" ");
    hash.add(token);
    hash.add("\n");
  }
  return hash.text();
}

void require_tokenizer_fits(const ProblemSet& problems, std::int64_t vocab_size,
                            const std::filesystem::path& model_folder) {
  const std::string remedy =
      problems.name() == "arithmetic"
          ? "; give a file that was prepared with --tokenizer " + model_folder.string() +
                " as --data.source"
          : "; prepare the problems with --tokenizer " + model_folder.string();
  if (problems.vocabulary().size() > vocab_size)
    throw std::invalid_argument(problems.name() + ": the problems' vocabulary has " +
                                std::to_string(problems.vocabulary().size()) +
                                " tokens, the model in " + model_folder.string() +
                                " knows " + std::to_string(vocab_size) + remedy);
  const std::filesystem::path path = model_folder / "tokenizer.json";
  if (problems.fingerprint().empty() || !std::filesystem::exists(path)) return;
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  const std::string theirs = tokenizer_fingerprint(text.str(), path.string());
  if (theirs != problems.fingerprint())
    throw std::invalid_argument(problems.name() +
                                ": the problems' tokens are of another tokenizer (" +
                                problems.fingerprint() + ") than " + path.string() +
                                " (" + theirs + ")" + remedy);
}

}  // namespace pion::lab
