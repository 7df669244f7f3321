// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/head_layout.h"

#include <stdexcept>
#include <string>

namespace pion {
namespace {

std::string list_text(const std::vector<std::int64_t>& numbers) {
  std::string text = "[";
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(numbers[i]);
  }
  return text + "]";
}

[[noreturn]] void fail(const std::string& what) {
  throw std::invalid_argument("head_blocks: " + what);
}

}  // namespace

void check_head_layout(const HeadLayout& layout, std::int64_t rows, std::int64_t cols) {
  if (rows < 1 || cols < 1) {
    fail("rows and cols must be positive, got [" + std::to_string(rows) + ", " +
         std::to_string(cols) + "]");
  }
  const int axis = layout.axis;
  const std::vector<std::int64_t>&sizes = layout.sizes, &heads = layout.heads;
  if (axis != 0 && axis != 1) {
    fail("axis must be 0 (output rows) or 1 (input columns), got " +
         std::to_string(axis));
  }
  const std::int64_t length = axis == 0 ? rows : cols;
  const std::size_t parts = sizes.empty() ? 1 : sizes.size();
  if (heads.size() != parts) {
    fail("heads must have one count per part, " + std::to_string(parts) + ", got " +
         list_text(heads));
  }
  std::int64_t rest = length;
  for (std::size_t part = 0; part < parts; ++part) {
    const std::int64_t size = sizes.empty() ? length : sizes[part];
    if (size < 1 || size > rest || heads[part] < 1) {
      fail("sizes and heads must be positive and sizes sum to " + std::to_string(length) +
           ", got sizes " + list_text(sizes) + ", heads " + list_text(heads));
    }
    rest -= size;
    if (size % heads[part] != 0) {
      fail("the head count must divide its " +
           std::string(axis == 0 ? "rows" : "columns") + ", " + std::to_string(size) +
           ", got " + std::to_string(heads[part]) + " heads for [" +
           std::to_string(rows) + ", " + std::to_string(cols) +
           "]; keys and values have kv_heads, not heads");
    }
  }
  if (rest != 0) {
    fail("sizes must sum to " + std::to_string(length) + ", got " + list_text(sizes));
  }
}

void fill_head_blocks(const HeadLayout& layout, std::int64_t rows, std::int64_t cols,
                      std::vector<Block>& blocks) {
  blocks.clear();
  check_head_layout(layout, rows, cols);
  std::int64_t start = 0;
  for (std::size_t part = 0; part < layout.heads.size(); ++part) {
    const std::int64_t length = layout.axis == 0 ? rows : cols;
    const std::int64_t head =
        (layout.sizes.empty() ? length : layout.sizes[part]) / layout.heads[part];
    for (std::int64_t h = 0; h < layout.heads[part]; ++h, start += head) {
      blocks.push_back(layout.axis == 0 ? Block{start, 0, head, cols}
                                        : Block{0, start, rows, head});
    }
  }
}

std::vector<Block> head_blocks(const HeadLayout& layout, std::int64_t rows,
                               std::int64_t cols) {
  std::vector<Block> blocks;
  fill_head_blocks(layout, rows, cols, blocks);
  return blocks;
}

}  // namespace pion
