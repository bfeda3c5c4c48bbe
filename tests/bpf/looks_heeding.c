// SPDX-License-Identifier: MIT OR Apache-2.0
#define HEEDS_SKIPPED
#include "looks.c"
