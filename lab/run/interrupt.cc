// SPDX-License-Identifier: Apache-2.0
#include "lab/run/interrupt.h"

#include <csignal>
#include <initializer_list>

namespace pion::lab {
namespace {

volatile std::sig_atomic_t marked = 0;

void set(void (*action)(int), int flags) {
  struct sigaction how{};
  how.sa_handler = action;
  how.sa_flags = flags;
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &how, nullptr);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  marked = 0;
  set([](int) { marked = 1; }, SA_RESTART | static_cast<int>(SA_RESETHAND));
}
InterruptGuard::~InterruptGuard() { set(SIG_DFL, 0); }
bool InterruptGuard::interrupted() { return marked != 0; }

}  // namespace pion::lab
