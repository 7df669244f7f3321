// SPDX-License-Identifier: Apache-2.0
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace pion {

enum class Denormals {
  kZero,         // results become zero, operands count as zero
  kZeroResults,  // results become zero
};

// While one exists, results of this thread that are denormal become zero: a filter that
// takes singular values to 1e-40 would otherwise run up to a hundred times slower.
// Does nothing on other architectures than x86.
class FlushDenormals {
 public:
#if defined(__SSE2__)
  explicit FlushDenormals(Denormals which = Denormals::kZero) : saved_(_mm_getcsr()) {
    const unsigned operands = which == Denormals::kZero ? kZeroOperands : 0;
    _mm_setcsr(saved_ | kFlushToZero | operands);
  }
  ~FlushDenormals() { _mm_setcsr((_mm_getcsr() & ~kControl) | (saved_ & kControl)); }
#else
  explicit FlushDenormals(Denormals = Denormals::kZero) {}
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__SSE2__)
  static constexpr unsigned kFlushToZero = 0x8000;   // bit FTZ of MXCSR
  static constexpr unsigned kZeroOperands = 0x0040;  // bit DAZ of MXCSR
  static constexpr unsigned kControl = kFlushToZero | kZeroOperands;
  unsigned saved_;
#endif
};

}  // namespace pion
