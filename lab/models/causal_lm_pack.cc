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

// A rectangle for rows [first, last); writes where their tokens lie in it, from `offset`
// on.
AttentionBlock make_block(std::span<const Row> rows, std::int64_t offset,
                          std::int64_t* from_blocks) {
  const std::int64_t count = std::ssize(rows);
  std::int64_t lq = 0, lk = 0;
  bool any_earlier = false;
  for (const Row& row : rows) {
    lq = std::max(lq, row.length);
    lk = std::max(lk, row.earlier_length + row.length);
    any_earlier = any_earlier || row.earlier_length > 0;
  }
  AttentionBlock block;
  block.queries = torch::empty({count, lq}, torch::kInt64);
  torch::Tensor keys = torch::empty({count, lk}, torch::kInt64);
  torch::Tensor before = torch::empty({count, 1, 1, 1}, torch::kInt64);
  auto* query = block.queries.mutable_data_ptr<std::int64_t>();
  auto* key = keys.mutable_data_ptr<std::int64_t>();
  for (std::int64_t r = 0; r < count; ++r) {
    const Row& row = rows[r];
    for (std::int64_t i = 0; i < lq; ++i) {
      query[r * lq + i] = row.begin + std::min(i, row.length - 1);
      if (i < row.length) from_blocks[row.begin + i] = offset + r * lq + i;
    }
    for (std::int64_t j = 0; j < lk; ++j) {
      const std::int64_t own = std::min(j - row.earlier_length, row.length - 1);
      key[r * lk + j] = own < 0 ? row.earlier + j : row.begin + own;
    }
    before.mutable_data_ptr<std::int64_t>()[r] = row.earlier_length;
  }
  const torch::Tensor i = torch::arange(lq).unsqueeze(1), j = torch::arange(lk);
  block.mask = j <= i + before;
  if (any_earlier) block.keys = keys;
  return block;
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
  pack.tokens = torch::tensor(tokens, torch::kInt64);
  pack.positions = torch::tensor(positions, torch::kInt64);
  pack.from_blocks = torch::empty(pack.tokens.sizes(), torch::kInt64);

  // rows of similar shape share a rectangle: at most a quarter of its height is padding
  std::vector<Row> rows = find_rows(sequences, pack.begins);
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return std::pair(a.earlier_length > 0, a.length) >
           std::pair(b.earlier_length > 0, b.length);
  });
  std::int64_t offset = 0;
  for (std::size_t first = 0; first < rows.size();) {
    std::size_t last = first;
    while (last < rows.size() && 4 * rows[last].length >= 3 * rows[first].length &&
           (rows[last].earlier_length > 0) == (rows[first].earlier_length > 0))
      ++last;
    pack.blocks.push_back(make_block({rows.data() + first, last - first}, offset,
                                     pack.from_blocks.mutable_data_ptr<std::int64_t>()));
    offset += pack.blocks.back().queries.numel();
    first = last;
  }
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
  std::vector<torch::Tensor> outputs;
  const auto gather = [](const torch::Tensor& from, const torch::Tensor& index) {
    return from.index_select(0, index.flatten())
        .view({index.size(0), index.size(1), from.size(1), from.size(2)})
        .transpose(1, 2);
  };
  for (const AttentionBlock& block : pack.blocks) {
    const torch::Tensor& keys = block.keys.defined() ? block.keys : block.queries;
    const torch::Tensor out = torch::scaled_dot_product_attention(
        gather(q, block.queries), gather(k, keys), gather(v, keys), block.mask,
        /*dropout_p=*/0.0, /*is_causal=*/false, /*scale=*/std::nullopt,
        /*enable_gqa=*/heads != k.size(1));
    outputs.push_back(out.transpose(1, 2).reshape({-1, heads, dim}));
  }
  return torch::cat(outputs).index_select(0, pack.from_blocks);
}

}  // namespace pion::lab
