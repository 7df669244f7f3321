// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <span>

namespace pion {

// Uninitialized memory for n numbers that grows when it must and never shrinks.
template <class T>
class Scratch {
 public:
  // The contents are lost whenever it grows.
  std::span<T> at_least(std::size_t n) {
    if (n > size_) {
      memory_.reset();
      memory_.reset(static_cast<T*>(::operator new(n * sizeof(T), kAlignment)));
      size_ = n;
    }
    return {memory_.get(), n};
  }

  T* data() { return memory_.get(); }
  const T* data() const { return memory_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{64};  // a cache line
  struct Release {
    void operator()(T* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<T, Release> memory_;
  std::size_t size_ = 0;
};

}  // namespace pion
