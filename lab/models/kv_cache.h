// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <cstddef>
#include <cstdint>

#include "lab/models/generation_kernels.h"

namespace pion::lab {

// Keys and values of `sequences` sequences of at most `capacity` tokens, for all layers,
// in f32. Allocated once and zero; memory that no token has reached is never touched, so
// the system gives it none. Layout: see DecodeShape.
class KvCache {
 public:
  KvCache(std::int64_t layers, const DecodeShape& shape, std::int64_t sequences,
          std::int64_t capacity)
      : shape_(shape), capacity_(rounded_up(capacity)), sequences_(sequences) {
    const std::int64_t rows =
        layers * sequences * static_cast<std::int64_t>(shape.kv_heads);
    keys_ = torch::zeros({rows, capacity_ * static_cast<std::int64_t>(shape.head_dim)});
    values_ =
        torch::zeros({rows, capacity_ * static_cast<std::int64_t>(shape.value_stride())});
  }

  // Of all heads, in one layer.
  KvView view(std::int64_t layer, std::int64_t sequence) {
    const std::int64_t row =
        (layer * sequences_ + sequence) * static_cast<std::int64_t>(shape_.kv_heads);
    return {keys_.mutable_data_ptr<float>() + row * keys_.size(1),
            values_.mutable_data_ptr<float>() + row * values_.size(1),
            static_cast<std::size_t>(capacity_)};
  }

 private:
  static std::int64_t rounded_up(std::int64_t count) {
    const auto lanes = static_cast<std::int64_t>(kDecodeLanes);
    return (count + lanes - 1) / lanes * lanes;
  }

  DecodeShape shape_;
  std::int64_t capacity_, sequences_;
  torch::Tensor keys_, values_;
};

}  // namespace pion::lab
