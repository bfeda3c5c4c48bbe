// SPDX-License-Identifier: MIT OR Apache-2.0
/* A build whose counters are too narrow for what the others count. */
#include <linux/types.h>

struct flow {
	__u8 packets;
	__u32 bytes;
	__u16 kind;
};

struct last {
	__u64 octets;
	__u64 spare;
};

#define COUNT(flow, octets)                                                                                            \
	do {                                                                                                           \
		(flow)->packets++;                                                                                     \
		__sync_fetch_and_add(&(flow)->bytes, octets);                                                          \
	} while (0)
#define KEPT struct last
#define VERDICT XDP_DROP
#include "flows.h"
