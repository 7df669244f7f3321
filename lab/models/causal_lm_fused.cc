// SPDX-License-Identifier: Apache-2.0
#include "lab/models/causal_lm_fused.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace pion::lab {
namespace portable {
extern const FusedKernels kFusedKernels;
}
#ifdef PION_X86_KERNELS
namespace avx2 {
extern const FusedKernels kFusedKernels;
}
namespace avx512 {
extern const FusedKernels kFusedKernels;
}
#endif

const FusedKernels& fused_kernels([[maybe_unused]] CpuTarget target) {
#ifdef PION_X86_KERNELS
  if (target >= CpuTarget::kAvx512) return avx512::kFusedKernels;
  if (target == CpuTarget::kAvx2) return avx2::kFusedKernels;
#endif
  return portable::kFusedKernels;
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows that one task takes; also the blocks whose gain gradients are summed in order, so
// that threads change nothing.
constexpr std::int64_t kRows = 256;
constexpr std::int64_t kNumbers = 1 << 14;  // of a pass without rows: a task's share

bool fits(const torch::Tensor& x) {
  return x.scalar_type() == torch::kFloat32 && x.is_cpu() && x.numel() > 0;
}

const float* in(const torch::Tensor& x) { return x.const_data_ptr<float>(); }
float* out_of(torch::Tensor& x) { return x.mutable_data_ptr<float>(); }

struct RmsNormStep : torch::autograd::Function<RmsNormStep> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& any,
                               const torch::Tensor& gain, double eps) {
    const torch::Tensor x = any.contiguous();
    const std::int64_t width = x.size(-1), rows = x.numel() / width;
    torch::Tensor out = torch::empty_like(x), scales = torch::empty({rows}, x.options());
    const float* from = in(x);
    float *to = out_of(out), *scale = out_of(scales);
    at::parallel_for(0, rows, kRows, [&](std::int64_t begin, std::int64_t end) {
      fused_kernels().norm(from + begin * width, in(gain), static_cast<float>(eps),
                           end - begin, width, to + begin * width, scale + begin);
    });
    context->save_for_backward({x, gain, scales});
    return out;
  }

  static variable_list backward(AutogradContext* context,
                                const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const torch::Tensor &x = saved[0], &gain = saved[1], &scales = saved[2];
    const torch::Tensor gradient = gradients[0].contiguous();
    const std::int64_t width = x.size(-1), rows = x.numel() / width;
    const std::int64_t blocks = (rows + kRows - 1) / kRows;
    torch::Tensor to_x = torch::empty_like(x);
    torch::Tensor to_gain = torch::zeros({blocks, width}, x.options());
    float *into = out_of(to_x), *parts = out_of(to_gain);
    at::parallel_for(0, blocks, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t block = first; block < last; ++block) {
        const std::int64_t begin = block * kRows;
        fused_kernels().norm_gradient(in(x) + begin * width, in(gain), in(scales) + begin,
                                      in(gradient) + begin * width,
                                      std::min(kRows, rows - begin), width,
                                      into + begin * width, parts + block * width);
      }
    });
    return {to_x, to_gain.sum(0), {}};
  }
};

struct GateStep : torch::autograd::Function<GateStep> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& any_gate,
                               const torch::Tensor& any_up) {
    const torch::Tensor gate = any_gate.contiguous(), up = any_up.contiguous();
    torch::Tensor out = torch::empty_like(gate);
    float* to = out_of(out);
    at::parallel_for(
        0, gate.numel(), kNumbers, [&](std::int64_t begin, std::int64_t end) {
          fused_kernels().gate(in(gate) + begin, in(up) + begin, end - begin, to + begin);
        });
    context->save_for_backward({gate, up});
    return out;
  }

  static variable_list backward(AutogradContext* context,
                                const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const torch::Tensor &gate = saved[0], &up = saved[1];
    const torch::Tensor gradient = gradients[0].contiguous();
    torch::Tensor to_gate = torch::empty_like(gate), to_up = torch::empty_like(up);
    float *into_gate = out_of(to_gate), *into_up = out_of(to_up);
    at::parallel_for(0, gate.numel(), kNumbers,
                     [&](std::int64_t begin, std::int64_t end) {
                       fused_kernels().gate_gradient(in(gate) + begin, in(up) + begin,
                                                     in(gradient) + begin, end - begin,
                                                     into_gate + begin, into_up + begin);
                     });
    return {to_gate, to_up};
  }
};

torch::Tensor rotate_all(const torch::Tensor& any, const torch::Tensor& cosine,
                         const torch::Tensor& sine, float direction) {
  const torch::Tensor x = any.contiguous();
  const std::int64_t heads = x.size(1), dim = x.size(2);
  torch::Tensor out = torch::empty_like(x);
  float* to = out_of(out);
  at::parallel_for(0, x.size(0), kRows, [&](std::int64_t begin, std::int64_t end) {
    fused_kernels().rotate(in(x) + begin * heads * dim, in(cosine) + begin * dim,
                           in(sine) + begin * dim, direction, end - begin, heads, dim,
                           to + begin * heads * dim);
  });
  return out;
}

struct RotateStep : torch::autograd::Function<RotateStep> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x,
                               const torch::Tensor& cosine, const torch::Tensor& sine) {
    context->save_for_backward({cosine, sine});
    return rotate_all(x, cosine, sine, 1);
  }

  static variable_list backward(AutogradContext* context,
                                const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    return {rotate_all(gradients[0], saved[0], saved[1], -1), {}, {}};
  }
};

}  // namespace

torch::Tensor rms_norm_definition(const torch::Tensor& x, const torch::Tensor& gain,
                                  double eps) {
  const torch::Tensor wide =
      x.scalar_type() == torch::kFloat64 ? x : x.to(torch::kFloat32);
  const torch::Tensor scaled =
      wide * torch::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
  return gain * scaled.to(x.scalar_type());
}

torch::Tensor gated_definition(const torch::Tensor& gate, const torch::Tensor& up) {
  return torch::silu(gate) * up;
}

torch::Tensor rotated_definition(const torch::Tensor& x, const torch::Tensor& cosine,
                                 const torch::Tensor& sine) {
  const auto halves = x.chunk(2, -1);
  return x * cosine + torch::cat({-halves[1], halves[0]}, -1) * sine;
}

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& gain, double eps) {
  return fits(x) && fits(gain) ? RmsNormStep::apply(x, gain, eps)
                               : rms_norm_definition(x, gain, eps);
}

torch::Tensor gated(const torch::Tensor& gate, const torch::Tensor& up) {
  return fits(gate) && fits(up) ? GateStep::apply(gate, up) : gated_definition(gate, up);
}

torch::Tensor rotated(const torch::Tensor& x, const torch::Tensor& cosine,
                      const torch::Tensor& sine) {
  return fits(x) ? RotateStep::apply(x, cosine, sine)
                 : rotated_definition(x, cosine, sine);
}

}  // namespace pion::lab
