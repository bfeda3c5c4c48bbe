// SPDX-License-Identifier: MIT OR Apache-2.0
/* The second build: wider counters, one under another name, one field more, one less. */
#include <linux/types.h>

struct flow {
	__u16 kind;
	__u16 version;
	__u32 age;
	__u64 packets;
	__u64 octets;
};

typedef __u64 last[2];

#define COUNT(flow, size)                                                                                              \
	do {                                                                                                           \
		__sync_fetch_and_add(&(flow)->packets, 1);                                                             \
		__sync_fetch_and_add(&(flow)->octets, size);                                                           \
		(flow)->kind = 3;                                                                                      \
		(flow)->version = 2;                                                                                   \
	} while (0)
#define KEPT last
#define VERDICT XDP_DROP
#include "flows.h"
