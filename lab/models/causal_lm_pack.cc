// SPDX-License-Identifier: Apache-2.0
#include "lab/models/causal_lm_pack.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace pion::lab {
namespace {

// One row of a block: a sequence's own tokens and the run before them.
struct Row {
  std::int64_t begin, length;            // queries, and the last keys
  std::int64_t earlier, earlier_length;  // the first keys
};

std::vector<Row> find_rows(std::span<const PackedSequence> sequences,
                           const std::vector<std::int64_t>& begins) {
  std::vector<Row> rows;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const PackedSequence& one = sequences[i];
    Row row{begins[i], static_cast<std::int64_t>(one.tokens.size()), 0, 0};
    if (one.continues >= 0) {
      row.earlier = begins[one.continues];
      row.earlier_length = std::ssize(sequences[one.continues].tokens);
    }
    if (row.length > 0) rows.push_back(row);
  }
  return rows;
}

void check(std::span<const PackedSequence> sequences) {
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const std::int64_t earlier = sequences[i].continues;
    if (earlier < 0 && sequences[i].tokens.empty())
      throw std::invalid_argument("pack_tokens: sequence " + std::to_string(i) +
                                  " must have a token, got none");
    if (earlier >= static_cast<std::int64_t>(i) ||
        (earlier >= 0 && sequences[earlier].continues >= 0))
      throw std::invalid_argument(
          "pack_tokens: sequence " + std::to_string(i) +
          " must continue an earlier one that continues none, got " +
          std::to_string(earlier));
  }
}

// The slots of all blocks, as they are made.
struct Slots {
  std::vector<std::int64_t> query_tokens, key_tokens, query_slots, key_slots;
  std::vector<std::int64_t> query_padding, prompt_tokens, prompt_slots;
};

// Adds a rectangle for `rows`.
AttentionBlock add_block(std::span<const Row> rows, Slots& slots) {
  std::int64_t lq = 0, lk = 0;
  for (const Row& row : rows) {
    lq = std::max(lq, row.length);
    lk = std::max(lk, row.earlier_length + row.length);
  }
  const std::int64_t count = std::ssize(rows);
  torch::Tensor before = torch::empty({count, 1, 1, 1}, torch::kInt64);
  for (std::int64_t r = 0; r < count; ++r) {
    const Row& row = rows[r];
    for (std::int64_t i = 0; i < lq; ++i) {
      const std::int64_t slot = std::ssize(slots.query_tokens);
      slots.query_tokens.push_back(row.begin + std::min(i, row.length - 1));
      if (i < row.length)
        slots.query_slots[row.begin + i] = slot;
      else
        slots.query_padding.push_back(slot);
    }
    for (std::int64_t j = 0; j < lk; ++j) {
      const std::int64_t slot = std::ssize(slots.key_tokens);
      const std::int64_t own = j - row.earlier_length;
      slots.key_tokens.push_back(own < 0 ? row.earlier + j
                                         : row.begin + std::min(own, row.length - 1));
      if (own < 0) {
        slots.prompt_tokens.push_back(row.earlier + j);
        slots.prompt_slots.push_back(slot);
      } else if (own < row.length) {
        slots.key_slots[row.begin + own] = slot;
      }
    }
    before.mutable_data_ptr<std::int64_t>()[r] = row.earlier_length;
  }
  const torch::Tensor i = torch::arange(lq).unsqueeze(1), j = torch::arange(lk);
  return {count, lq, lk, j <= i + before};
}

torch::Tensor indices(const std::vector<std::int64_t>& values) {
  return torch::tensor(values, torch::kInt64);
}

// The same sequences, those that share a prompt one after the other.
c10::intrusive_ptr<AttentionPlan> make_plan(std::vector<Row> rows) {
  auto plan = c10::make_intrusive<AttentionPlan>();
  const auto family = [](const Row& row) {
    return row.earlier_length > 0 ? row.earlier : row.begin;
  };
  std::ranges::stable_sort(rows, {}, family);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i == 0 || family(rows[i]) != family(rows[i - 1])) plan->families.push_back(i);
    const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
    plan->runs.push_back({size(rows[i].begin), size(rows[i].length),
                          size(rows[i].earlier), size(rows[i].earlier_length)});
  }
  plan->families.push_back(rows.size());
  return plan;
}

}  // namespace

TokenPack pack_tokens(std::span<const PackedSequence> sequences) {
  check(sequences);
  TokenPack pack;
  std::vector<std::int64_t> tokens, positions;
  for (const PackedSequence& one : sequences) {
    pack.begins.push_back(std::ssize(tokens));
    tokens.insert(tokens.end(), one.tokens.begin(), one.tokens.end());
    std::int64_t position =
        one.continues < 0 ? 0 : std::ssize(sequences[one.continues].tokens);
    for (std::size_t i = 0; i < one.tokens.size(); ++i) positions.push_back(position++);
  }
  pack.tokens = indices(tokens);
  pack.positions = indices(positions);

  std::vector<Row> rows = find_rows(sequences, pack.begins);
  pack.plan = make_plan(rows);
  // rows of similar shape share a rectangle: at most a quarter of its height is padding
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return std::pair(a.earlier_length > 0, a.length) >
           std::pair(b.earlier_length > 0, b.length);
  });
  Slots slots;
  slots.query_slots.resize(tokens.size());
  slots.key_slots.resize(tokens.size());
  for (std::size_t first = 0; first < rows.size();) {
    std::size_t last = first;
    while (last < rows.size() && 4 * rows[last].length >= 3 * rows[first].length &&
           (rows[last].earlier_length > 0) == (rows[first].earlier_length > 0))
      ++last;
    pack.blocks.push_back(add_block({rows.data() + first, last - first}, slots));
    first = last;
  }
  pack.query_tokens = indices(slots.query_tokens);
  pack.key_tokens = indices(slots.key_tokens);
  pack.query_slots = indices(slots.query_slots);
  pack.key_slots = indices(slots.key_slots);
  pack.query_padding = indices(slots.query_padding);
  pack.prompt_tokens = indices(slots.prompt_tokens);
  pack.prompt_slots = indices(slots.prompt_slots);
  return pack;
}

Rotation make_rotation(const torch::Tensor& positions,
                       const torch::Tensor& inverse_frequencies,
                       torch::ScalarType dtype) {
  const torch::Tensor half =
      positions.to(torch::kFloat32).unsqueeze(1) * inverse_frequencies;
  const torch::Tensor angles = torch::cat({half, half}, 1).unsqueeze(1);
  return {angles.cos().to(dtype), angles.sin().to(dtype)};
}

}  // namespace pion::lab
