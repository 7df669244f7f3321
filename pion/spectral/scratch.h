// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <span>

namespace pion {

// Uninitialized memory that begins with a cache line. From 2 MiB on it begins with a
// large page, and the system is asked for large pages: a step walks through rows that are
// kilobytes apart, each in a small page of its own. Systems without them give small ones.
struct FreeScratch {
  std::align_val_t alignment{1};
  void operator()(void* memory) const { ::operator delete(memory, alignment); }
};
using ScratchMemory = std::unique_ptr<void, FreeScratch>;
ScratchMemory allocate_scratch(std::size_t bytes);

// Uninitialized memory for n numbers that grows when it must and never shrinks.
template <class T>
class Scratch {
 public:
  // The contents are lost whenever it grows.
  std::span<T> at_least(std::size_t n) {
    if (n > size_) {
      memory_.reset();
      size_ = 0;
      memory_ = allocate_scratch(n * sizeof(T));
      size_ = n;
    }
    return {data(), n};
  }

  T* data() { return static_cast<T*>(memory_.get()); }
  const T* data() const { return static_cast<const T*>(memory_.get()); }

 private:
  ScratchMemory memory_;
  std::size_t size_ = 0;
};

}  // namespace pion
