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

// Rows of tokens to the slots of blocks; what pads has no gradient, so that back is one
// row a token, and those of prompts that several sequences continue.
struct ToSlots : torch::autograd::Function<ToSlots> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& x, const torch::Tensor& tokens,
                               const torch::Tensor& slots,
                               const torch::Tensor& shared_tokens,
                               const torch::Tensor& shared_slots) {
    context->save_for_backward({slots, shared_tokens, shared_slots});
    return x.index_select(0, tokens);
  }
  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    torch::Tensor to_x = gradients[0].index_select(0, saved[0]);
    if (saved[1].numel() > 0)
      to_x.index_add_(0, saved[1], gradients[0].index_select(0, saved[2]));
    return {to_x, {}, {}, {}, {}};
  }
};

// Rows of slots to those of tokens; what pads gets the gradient 0.
struct FromSlots : torch::autograd::Function<FromSlots> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& x, const TokenPack& pack) {
    context->save_for_backward({pack.query_tokens, pack.query_padding});
    return x.index_select(0, pack.query_slots);
  }
  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    return {gradients[0].index_select(0, saved[0]).index_fill_(0, saved[1], 0), {}};
  }
};

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

  // rows of similar shape share a rectangle: at most a quarter of its height is padding
  std::vector<Row> rows = find_rows(sequences, pack.begins);
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

torch::Tensor packed_attention(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, const TokenPack& pack) {
  const std::int64_t heads = q.size(1), dim = q.size(2);
  std::vector<std::int64_t> query_counts, key_counts;
  for (const AttentionBlock& block : pack.blocks) {
    query_counts.push_back(block.rows * block.queries);
    key_counts.push_back(block.rows * block.keys);
  }
  const torch::Tensor none = indices({});
  const auto queries = ToSlots::apply(q, pack.query_tokens, pack.query_slots, none, none)
                           .split_with_sizes(query_counts);
  const auto of_keys = [&](const torch::Tensor& x) {
    return ToSlots::apply(x, pack.key_tokens, pack.key_slots, pack.prompt_tokens,
                          pack.prompt_slots)
        .split_with_sizes(key_counts);
  };
  const auto keys = of_keys(k), values = of_keys(v);
  std::vector<torch::Tensor> outputs;
  for (std::size_t b = 0; b < pack.blocks.size(); ++b) {
    const AttentionBlock& block = pack.blocks[b];
    const auto shaped = [&](const torch::Tensor& x, std::int64_t length) {
      return x.view({block.rows, length, x.size(1), dim}).transpose(1, 2);
    };
    const torch::Tensor out = torch::scaled_dot_product_attention(
        shaped(queries[b], block.queries), shaped(keys[b], block.keys),
        shaped(values[b], block.keys), block.mask,
        /*dropout_p=*/0.0, /*is_causal=*/false, /*scale=*/std::nullopt,
        /*enable_gqa=*/heads != k.size(1));
    outputs.push_back(out.transpose(1, 2).reshape({-1, heads, dim}));
  }
  return FromSlots::apply(torch::cat(outputs), pack);
}

}  // namespace pion::lab
