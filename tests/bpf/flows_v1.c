// SPDX-License-Identifier: MIT OR Apache-2.0
/* The first build of a module that counts flows. */
#include <linux/types.h>

struct flow {
	__u32 packets;
	__u32 bytes;
	__u32 spare;
	__u16 kind;
	__u16 reserved;
};

struct last {
	__u64 octets;
	__u64 spare;
};

#define COUNT(flow, octets)                                                                                            \
	do {                                                                                                           \
		__sync_fetch_and_add(&(flow)->packets, 1);                                                             \
		__sync_fetch_and_add(&(flow)->bytes, octets);                                                          \
		(flow)->spare = 7;                                                                                     \
		(flow)->kind = 3;                                                                                      \
	} while (0)
#define KEPT struct last
#define VERDICT XDP_DROP
#include "flows.h"
