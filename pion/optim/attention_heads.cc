// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/attention_heads.h"

#include <stdexcept>

namespace pion {
namespace {

std::string text(std::int64_t n) { return std::to_string(n); }

[[noreturn]] void fail(const Projection& p, const AttentionShape& counts,
                       const std::string& must) {
  throw std::invalid_argument(
      "route: " + p.name + ": " + must + ", got shape [" + text(p.rows) + ", " +
      text(p.cols) + "] with heads = " + text(counts.heads) +
      ", kv_heads = " + text(counts.kv_heads) + ", head_dim = " + text(counts.head_dim) +
      " (0: unknown). Give the counts of this part by attention_by_name, or set per_head "
      "= false");
}

// One count for all `length` outputs (or inputs) of a projection.
HeadDecision even(const Projection& p, const AttentionShape& counts, std::int64_t length,
                  std::int64_t heads, const std::string& what) {
  if (heads < 1 || length % heads != 0) {
    fail(p, counts, what + " must divide " + text(length));
  }
  const std::int64_t head_dim = length / heads;
  if (counts.head_dim != 0 && counts.head_dim != head_dim) {
    fail(p, counts, what + " times head_dim must be " + text(length));
  }
  return {{.heads = {heads}}, text(heads) + " heads of " + text(head_dim)};
}

// Gated attention (Qwen3-Next, Qwen3.5) has every head's gate below its query.
HeadDecision queries(const Projection& p, const AttentionShape& counts,
                     std::int64_t out) {
  if (out == 2 * p.read && p.read % counts.heads == 0 &&
      (counts.head_dim == 0 || p.read == counts.heads * counts.head_dim)) {
    return {{.heads = {2 * counts.heads}},
            text(counts.heads) + " queries and gates of " + text(p.read / counts.heads)};
  }
  return even(p, counts, out, counts.heads, "heads");
}

HeadDecision whole(const std::string& why) { return {{}, why + ": taken whole"}; }

// A gated delta net's: queries and keys have linear_key_heads, values and what reads them
// linear_value_heads. Its fused projections lie key head by key head, with gates between.
HeadDecision linear_heads(const Projection& p, const AttentionShape& counts,
                          std::int64_t out, std::int64_t in) {
  if (p.role == Role::kAttentionFusedQkv) return whole("linear attention, several parts");
  const bool keys = p.role == Role::kAttentionQ || p.role == Role::kAttentionK;
  const std::int64_t heads = keys ? counts.linear_key_heads : counts.linear_value_heads;
  if (heads == 0) return whole("linear attention, head count unknown");
  const std::int64_t length = p.role == Role::kAttentionO ? in : out;
  if (length % heads != 0) {
    throw std::invalid_argument(
        "route: " + p.name + ": " + (keys ? "linear_key_heads" : "linear_value_heads") +
        " must divide " + text(length) + ", got " + text(heads) +
        ". Give the counts of this part by attention_by_name, or set per_head = false");
  }
  return {{.heads = {heads}}, text(heads) + " linear heads of " + text(length / heads)};
}

// Width of one head, from the counts or from the query projection; 0 if unknown.
std::int64_t head_width(const Projection& p, const AttentionShape& counts) {
  if (counts.head_dim != 0) return counts.head_dim;
  const std::int64_t rows = p.query_rows == 2 * p.read ? p.read : p.query_rows;  // gated
  if (counts.heads == 0 || rows % counts.heads != 0) return 0;
  return rows / counts.heads;
}

HeadDecision key_or_value(const Projection& p, const AttentionShape& counts,
                          std::int64_t out) {
  const std::int64_t width = head_width(p, counts);
  if (counts.kv_heads != 0) {
    HeadDecision decision = even(p, counts, out, counts.kv_heads, "kv_heads");
    if (width != 0 && out / counts.kv_heads != width) {
      fail(p, counts,
           "key and value heads must be as wide as query heads, " + text(width));
    }
    return decision;
  }
  if (width == 0) return whole("kv_heads unknown");
  if (out % width != 0)
    fail(p, counts, "the head width " + text(width) + " must divide " + text(out));
  return even(p, counts, out, out / width, "kv_heads");
}

// Query, key and value rows of a fused projection.
struct Parts {
  std::int64_t width = 0, heads = 0, kv_heads = 0;
};

Parts fused_parts(const Projection& p, const AttentionShape& counts, std::int64_t out,
                  std::int64_t in) {
  Parts parts{counts.head_dim, counts.heads, counts.kv_heads};
  if (parts.kv_heads == 0 && parts.width != 0) {
    parts.kv_heads = (out / parts.width - parts.heads) / 2;
  } else if (parts.kv_heads == 0 && out == 3 * in) {
    parts.kv_heads = parts.heads;  // as many keys and values as queries
  }
  if (parts.kv_heads < 1) {
    if (counts.head_dim != 0)
      fail(p, counts, "heads and head_dim must leave rows for keys and values");
    return {};
  }
  const std::int64_t all = parts.heads + 2 * parts.kv_heads;
  if (out % all != 0 || (parts.width != 0 && parts.width * all != out)) {
    fail(p, counts,
         "heads + 2 kv_heads heads must make up its " + text(out) + " outputs");
  }
  parts.width = out / all;
  return parts;
}

HeadDecision fused(const Projection& p, const AttentionShape& counts, std::int64_t out,
                   std::int64_t in, bool per_head) {
  const Parts parts = counts.heads == 0 ? Parts{} : fused_parts(p, counts, out, in);
  const std::int64_t h = parts.heads, k = parts.kv_heads, d = parts.width;
  if (d != 0 && per_head) {
    return {{.sizes = {h * d, k * d, k * d}, .heads = {h, k, k}},
            text(h) + " + " + text(k) + " + " + text(k) + " heads of " + text(d)};
  }
  if (p.interleaved)
    return whole(per_head ? "head count unknown" : "query, key and value interleaved");
  if (d != 0)
    return {{.sizes = {h * d, k * d, k * d}, .heads = {1, 1, 1}}, "cut into Q, K, V"};
  if (out == 3 * in) {
    return {{.sizes = {in, in, in}, .heads = {1, 1, 1}},
            "head count unknown: cut into Q, K, V"};
  }
  return whole("head count unknown");
}

}  // namespace

HeadDecision attention_heads(const Projection& p, const AttentionShape& counts,
                             bool per_head) {
  const std::int64_t out = p.transposed ? p.cols : p.rows,
                     in = p.transposed ? p.rows : p.cols;
  HeadDecision decision;
  if (p.linear && per_head) {
    decision = linear_heads(p, counts, out, in);
  } else if (p.linear) {
    decision = {{}, "taken whole"};
  } else if (p.role == Role::kAttentionFusedQkv) {
    decision = fused(p, counts, out, in, per_head);
  } else if (!per_head) {
    decision = {{}, "taken whole"};
  } else if (counts.heads == 0) {
    decision = whole("head count unknown");
  } else if (p.role == Role::kAttentionQ) {
    decision = queries(p, counts, out);
  } else if (p.role == Role::kAttentionO) {
    decision = even(p, counts, in, counts.heads, "heads");
  } else {
    decision = key_or_value(p, counts, out);
  }
  const bool input_side = p.role == Role::kAttentionO;
  decision.layout.axis = input_side != p.transposed ? 1 : 0;
  decision.layout.transposed = p.transposed;
  return decision;
}

}  // namespace pion
