// SPDX-License-Identifier: Apache-2.0
// The version of these headers; CMake reads it from here. Until 1.0 a new minor version
// may change what pion/optim.h and pion/torch/pion.h declare, a patch does not.
#pragma once

#define PION_VERSION_MAJOR 0
#define PION_VERSION_MINOR 1
#define PION_VERSION_PATCH 0

// For comparisons: 102 is 0.1.2.
#define PION_VERSION \
  (PION_VERSION_MAJOR * 10000 + PION_VERSION_MINOR * 100 + PION_VERSION_PATCH)

// "0.1.0"
#define PION_VERSION_STRING             \
  PION_VERSION_TEXT(PION_VERSION_MAJOR) \
  "." PION_VERSION_TEXT(PION_VERSION_MINOR) "." PION_VERSION_TEXT(PION_VERSION_PATCH)
#define PION_VERSION_TEXT(number) PION_VERSION_TEXT_OF(number)
#define PION_VERSION_TEXT_OF(number) #number
