// SPDX-License-Identifier: Apache-2.0
// The vectors of the CPU target that a kernel source is being built for. Only for
// *_kernel.cc files, which are built with
//   PION_TARGET  the target's namespace: portable, avx2, avx512
//   PION_LANES   floats in one vector: 4, 8, 16
// Everything here lies in that namespace, so that no two targets share a symbol.
#pragma once

#include <cstddef>

namespace pion::PION_TARGET {

typedef float F32 __attribute__((vector_size(4 * PION_LANES)));
typedef double F64 __attribute__((vector_size(4 * PION_LANES)));

// The vector of an element type and how many elements it has.
template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  using Vector = F32;
  static constexpr std::size_t kCount = PION_LANES;
};
template <>
struct Lanes<double> {
  using Vector = F64;
  static constexpr std::size_t kCount = PION_LANES / 2;
};

// `x` needs no alignment.
template <class T>
inline typename Lanes<T>::Vector load(const T* x) {
  typename Lanes<T>::Vector v;
  __builtin_memcpy(&v, x, sizeof v);
  return v;
}

template <class T>
inline void store(T* x, typename Lanes<T>::Vector v) {
  __builtin_memcpy(x, &v, sizeof v);
}

}  // namespace pion::PION_TARGET
