// SPDX-License-Identifier: Apache-2.0
// Which part a parameter plays, from its module type, name, ties and shape.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pion/optim/parameter_name.h"
#include "pion/optim/routing.h"

namespace pion {

struct Placement {
  Role role;
  std::string reason;
};

// Reads the whole model once: some parts can only be told from their neighbours.
class RoleFinder {
 public:
  // Throws std::invalid_argument if the model is flattened (FSDP1).
  explicit RoleFinder(const std::vector<ParameterDescription>& parameters);

  // The part that parameters[index] plays; nothing if it cannot be told.
  std::optional<Placement> find(std::size_t index) const;
  // Weights are stored (in, out), as GPT-2's Conv1D and GPT-OSS's experts are.
  bool stored_in_out(std::size_t index) const;
  // The same of a stack of matrices; nothing if it cannot be told.
  std::optional<bool> experts_in_out(std::size_t index) const;
  // Of a linear attention (gated delta net), whose heads are not the softmax attention's.
  bool in_linear_attention(std::size_t index) const;
  // Of a latent attention (DeepSeek's), whose queries, keys and values differ in width:
  // a config's head_dim is none of theirs.
  bool in_latent_attention(std::size_t index) const;
  // Why a parameter that find() cannot tell is in doubt, beside its name; "" if unknown.
  std::string doubt(std::size_t index) const;
  // Rows (outputs) of the query projection that belongs to parameters[index]; 0 if none.
  std::int64_t query_rows(std::size_t index) const;
  // Inputs of the output projection that belongs to parameters[index]; 0 if none.
  std::int64_t output_inputs(std::size_t index) const;
  // Equal gates in the rows of a recurrent weight (4 for LSTM); 1 for anything else.
  std::int64_t recurrent_gates(std::size_t index) const;

 private:
  struct Entry {
    ParameterName name;
    std::string type;
    std::vector<std::int64_t> shape;
    int wide_dims = 0;      // dimensions larger than 1
    std::size_t index = 0;  // in the order of the model
  };
  using Answer = std::optional<Placement>;

  void check_flattened(const std::vector<ParameterDescription>& parameters) const;
  void collect_neighbours();
  void resolve_ties(const std::vector<ParameterDescription>& parameters);
  Answer decide(const Entry& e) const;

  // The judgements in their order; the first that answers decides.
  Answer vectors(const Entry& e) const;
  Answer adapters(const Entry& e) const;
  Answer embeddings(const Entry& e) const;
  Answer recurrent(const Entry& e) const;
  Answer attention(const Entry& e) const;
  Answer routers(const Entry& e) const;
  Answer heads(const Entry& e) const;
  Answer convolutions(const Entry& e) const;
  Answer experts(const Entry& e) const;
  Answer multilayer(const Entry& e) const;
  Answer sequential(const Entry& e) const;
  Answer remaining_linear(const Entry& e) const;

  bool has_sibling(const Entry& e, std::initializer_list<std::string_view> leaves) const;
  bool in_attention(const Entry& e) const;
  bool in_experts(const Entry& e) const;
  std::int64_t width_of(const Entry& e) const;
  bool may_be_a_stack(const Entry& e) const;
  std::int64_t inputs(const Entry& e) const;
  std::int64_t outputs(const Entry& e) const;
  bool is_last(const Entry& e) const;
  bool may_end(const Entry& e) const;
  bool is_read(const Entry& e) const;

  std::vector<Entry> entries_;
  std::vector<Answer> answers_;
  // leaves of matrices below a prefix
  std::map<std::string, std::set<std::string>> children_;
  // numbered layers of matrices below a prefix: number, index
  std::map<std::string, std::vector<std::pair<std::int64_t, std::size_t>>> numbered_;
  std::map<std::string, std::int64_t> query_rows_;  // of the first query below a prefix
  std::set<std::string> linear_attentions_;         // prefixes
  bool has_head_ = false;                           // a head that has a head's name
  bool in_out_ = false;                             // the model holds GPT-2's Conv1D
};

// Part of a sequence of layers by name: "fc2" gives 2, "4" gives 4, "proj" nothing.
std::optional<std::int64_t> layer_number(std::string_view leaf);

}  // namespace pion
