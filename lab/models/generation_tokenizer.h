// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lab/rewards/worker.h"

namespace pion::lab {

// A model folder's tokenizer, in a process of its own: python/pion/tokenizer_worker.py,
// run by the Python that PION_PYTHON names, else the checkout's. Confined, since the
// folder and its chat template come from anywhere: see lab/rewards/confinement.h.
class Tokenizer {
 public:
  // Starts nothing yet.
  explicit Tokenizer(const std::filesystem::path& folder);

  // Throw std::invalid_argument with what the process says: no Python, no tokenizer in
  // the folder, a text that is not UTF-8.
  std::vector<std::int64_t> encode(const std::string& text);
  // As a user's message, by the folder's chat template, which must be there.
  std::vector<std::int64_t> encode_chat(const std::string& text);
  std::string decode(std::span<const std::int64_t> tokens);

 private:
  std::vector<std::int64_t> tokens_of(const std::string& text, bool chat);
  std::string ask(const std::string& request);  // the line that answers
  [[noreturn]] void fail(const std::string& what) const;

  Exchange exchange(const std::string& request);  // starts the process if none runs

  std::string folder_;
  std::unique_ptr<Worker> worker_;
  std::string note_;  // how the process is confined, after a complaint
};

}  // namespace pion::lab
