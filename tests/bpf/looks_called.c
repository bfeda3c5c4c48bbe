// SPDX-License-Identifier: MIT OR Apache-2.0
#define TAIL_CALLS
#include "looks.c"
