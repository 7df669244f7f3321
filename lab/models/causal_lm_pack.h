// SPDX-License-Identifier: Apache-2.0
// Sequences of unequal length without padding: all tokens one after the other, and who
// attends to whom. A prompt that several answers continue is there once.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <span>
#include <vector>

#include "lab/models/causal_lm_attention_kernel_call.h"

namespace pion::lab {

// A run of new tokens, and the earlier sequence that it continues.
struct PackedSequence {
  std::vector<std::int64_t> tokens;
  // index of an earlier sequence, itself continuing none; -1: none
  std::int64_t continues = -1;
};

// Queries and keys of sequences of similar length, padded to a rectangle for attention.
struct AttentionBlock {
  std::int64_t rows, queries, keys;  // queries and keys of a row, with padding
  torch::Tensor
      mask;  // (rows, 1, queries, keys) bool, true: attended; never empty in a row
};

// Sequences that have tokens, those that share a prompt one after the other.
struct AttentionPlan : torch::CustomClassHolder {
  std::vector<AttentionRun> runs;
  std::vector<std::size_t> families;  // the first run of each prompt, and the end
};

// N tokens. Sequences lie in the order given, tokens of one are contiguous. Queries of
// all blocks, row by row, are S slots; their keys are T. Padding repeats a valid token.
struct TokenPack {
  torch::Tensor tokens;     // (N) i64
  torch::Tensor positions;  // (N) i64
  std::vector<AttentionBlock> blocks;
  torch::Tensor query_tokens, key_tokens;     // (S), (T) i64: the token in each slot
  torch::Tensor query_slots, key_slots;       // (N) i64: each token's own slot
  torch::Tensor query_padding;                // i64: slots of queries that only pad
  torch::Tensor prompt_tokens, prompt_slots;  // i64: keys that are another sequence's
  std::vector<std::int64_t> begins;           // of each sequence's first token
  c10::intrusive_ptr<AttentionPlan> plan;
};

// Throws std::invalid_argument if a sequence that continues none has no token, or one
// continues what is no earlier sequence.
TokenPack pack_tokens(std::span<const PackedSequence> sequences);

// Cosines and sines of a pack's positions, (N, 1, head_dim) in the weights' type.
struct Rotation {
  torch::Tensor cosine, sine;
};
Rotation make_rotation(const torch::Tensor& positions,
                       const torch::Tensor& inverse_frequencies, torch::ScalarType dtype);

}  // namespace pion::lab
