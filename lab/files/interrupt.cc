// SPDX-License-Identifier: Apache-2.0
#include "lab/files/interrupt.h"

#include <array>
#include <csignal>
#include <cstddef>

namespace pion::lab {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};

volatile std::sig_atomic_t marked = 0;
int guards = 0;
std::array<struct sigaction, kSignals.size()> before;  // what the outermost guard found

}  // namespace

InterruptGuard::InterruptGuard() {
  if (guards++ > 0) return;
  marked = 0;
  struct sigaction mark{};
  mark.sa_handler = [](int) { marked = 1; };
  mark.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], nullptr, &before[i]);
    if (kSignals[i] == SIGHUP && before[i].sa_handler == SIG_IGN) continue;
    sigaction(kSignals[i], &mark, nullptr);
  }
}

InterruptGuard::~InterruptGuard() {
  if (--guards > 0) return;
  for (std::size_t i = 0; i < kSignals.size(); ++i)
    sigaction(kSignals[i], &before[i], nullptr);
}

bool InterruptGuard::interrupted() { return marked != 0; }

}  // namespace pion::lab
