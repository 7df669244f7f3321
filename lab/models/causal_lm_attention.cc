// SPDX-License-Identifier: Apache-2.0
#include "lab/models/causal_lm_attention.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "lab/models/causal_lm_fused.h"

namespace pion::lab {
namespace portable {
extern const AttentionKernels kAttentionKernels;
}
#ifdef PION_X86_KERNELS
namespace avx2 {
extern const AttentionKernels kAttentionKernels;
}
namespace avx512 {
extern const AttentionKernels kAttentionKernels;
}
#endif

const AttentionKernels& attention_kernels([[maybe_unused]] CpuTarget target) {
#ifdef PION_X86_KERNELS
  if (target >= CpuTarget::kAvx512) return avx512::kAttentionKernels;
  if (target == CpuTarget::kAvx2) return avx2::kAttentionKernels;
#endif
  return portable::kAttentionKernels;
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Keys of a sequence up to which the kernels are ahead of LibTorch's attention.
constexpr std::size_t kShort = 512;

bool fits(const torch::Tensor& q, const TokenPack& pack) {
  if (q.scalar_type() != torch::kFloat32 || !q.is_cpu()) return false;
  return std::ranges::all_of(pack.plan->runs, [](const AttentionRun& run) {
    return run.earlier_length + run.length <= kShort;
  });
}

AttentionInput input_of(const torch::Tensor& q, const torch::Tensor& k,
                        const torch::Tensor& v, const torch::Tensor& cosine,
                        const torch::Tensor& sine) {
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  return {q.const_data_ptr<float>(),
          k.const_data_ptr<float>(),
          v.const_data_ptr<float>(),
          cosine.const_data_ptr<float>(),
          sine.const_data_ptr<float>(),
          size(q.size(1)),
          size(k.size(1)),
          size(q.size(2))};
}

// Calls work(run, kv head, scratch) for all; those that share a prompt and a head are one
// task, since they add to the same keys.
template <class Work>
void each_run(const AttentionPlan& plan, const AttentionInput& input, const Work& work) {
  std::size_t scratch = 0;
  for (const AttentionRun& run : plan.runs)
    scratch = std::max(scratch, attention_kernels().scratch(run, input.dim));
  const auto heads = static_cast<std::int64_t>(input.kv_heads);
  const std::int64_t tasks = heads * (std::ssize(plan.families) - 1);
  at::parallel_for(0, tasks, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> mine(scratch);
    for (std::int64_t task = begin; task < end; ++task) {
      const std::size_t family = static_cast<std::size_t>(task / heads);
      for (std::size_t r = plan.families[family]; r < plan.families[family + 1]; ++r)
        work(plan.runs[r], static_cast<std::size_t>(task % heads), mine.data());
    }
  });
}

struct AttentionStep : torch::autograd::Function<AttentionStep> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& any_q,
                               const torch::Tensor& any_k, const torch::Tensor& any_v,
                               const Rotation& rotation,
                               const c10::intrusive_ptr<AttentionPlan>& plan) {
    const torch::Tensor q = any_q.contiguous(), k = any_k.contiguous();
    const torch::Tensor v = any_v.contiguous();
    torch::Tensor out = torch::empty_like(q);
    torch::Tensor log_sums = torch::empty({q.size(0), q.size(1)}, q.options());
    const AttentionInput input = input_of(q, k, v, rotation.cosine, rotation.sine);
    float *to = out.mutable_data_ptr<float>(), *sums = log_sums.mutable_data_ptr<float>();
    each_run(*plan, input,
             [&](const AttentionRun& run, std::size_t head, float* scratch) {
               attention_kernels().forward(input, run, head, scratch, to, sums);
             });
    context->save_for_backward({q, k, v, rotation.cosine, rotation.sine, out, log_sums});
    context->saved_data["plan"] = c10::IValue::make_capsule(plan);
    return out;
  }

  static variable_list backward(AutogradContext* context,
                                const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto plan = c10::static_intrusive_pointer_cast<AttentionPlan>(
        context->saved_data["plan"].toCapsule());
    const torch::Tensor gradient = gradients[0].contiguous();
    torch::Tensor to_q = torch::empty_like(saved[0]);
    torch::Tensor to_k = torch::zeros_like(saved[1]), to_v = torch::zeros_like(saved[2]);
    const AttentionInput input =
        input_of(saved[0], saved[1], saved[2], saved[3], saved[4]);
    const auto *out = saved[5].const_data_ptr<float>(),
               *sums = saved[6].const_data_ptr<float>(),
               *from = gradient.const_data_ptr<float>();
    auto *into_q = to_q.mutable_data_ptr<float>(),
         *into_k = to_k.mutable_data_ptr<float>(),
         *into_v = to_v.mutable_data_ptr<float>();
    each_run(*plan, input,
             [&](const AttentionRun& run, std::size_t head, float* scratch) {
               attention_kernels().backward(input, run, head, out, sums, from, scratch,
                                            into_q, into_k, into_v);
             });
    return {to_q, to_k, to_v, {}, {}};
  }
};

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

torch::Tensor packed_attention_definition(const torch::Tensor& plain_q,
                                          const torch::Tensor& plain_k,
                                          const torch::Tensor& v,
                                          const Rotation& rotation,
                                          const TokenPack& pack) {
  const torch::Tensor q = rotated(plain_q, rotation.cosine, rotation.sine);
  const torch::Tensor k = rotated(plain_k, rotation.cosine, rotation.sine);
  const std::int64_t heads = q.size(1), dim = q.size(2);
  std::vector<std::int64_t> query_counts, key_counts;
  for (const AttentionBlock& block : pack.blocks) {
    query_counts.push_back(block.rows * block.queries);
    key_counts.push_back(block.rows * block.keys);
  }
  const torch::Tensor none = torch::empty({0}, torch::kInt64);
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

torch::Tensor packed_attention(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, const Rotation& rotation,
                               const TokenPack& pack) {
  return fits(q, pack) ? AttentionStep::apply(q, k, v, rotation, pack.plan)
                       : packed_attention_definition(q, k, v, rotation, pack);
}

}  // namespace pion::lab
