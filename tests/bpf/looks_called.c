// SPDX-License-Identifier: MIT OR Apache-2.0
#define TAIL_CALLS
/* That helps only who is joined with others. */
#define HEEDS_SKIPPED
#include "looks.c"
