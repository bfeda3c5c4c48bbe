// SPDX-License-Identifier: MIT OR Apache-2.0
/* Modules that tell whether a packet met one chain: stampN writes N into the packet, and checkN drops and counts what has
 * another mark. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define ETHERTYPE 0x88b5

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} mixed SEC(".maps");

static __always_inline __u8 *mark_of(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;
	__u8 *mark = (__u8 *)(eth + 1);

	if ((void *)(mark + 1) > (void *)(long)ctx->data_end || eth->h_proto != bpf_htons(ETHERTYPE))
		return 0;
	return mark;
}

static __always_inline int stamp(struct xdp_md *ctx, __u8 number)
{
	__u8 *mark = mark_of(ctx);

	if (mark)
		*mark = number;
	return XDP_PASS;
}

static __always_inline int check(struct xdp_md *ctx, __u8 number)
{
	__u8 *mark = mark_of(ctx);
	__u32 key = 0;
	__u64 *count;

	if (!mark || *mark == number)
		return XDP_PASS;
	count = bpf_map_lookup_elem(&mixed, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	return XDP_DROP;
}

#define MARK(number)                                                                                                   \
	SEC("xdp")                                                                                                     \
	int stamp##number(struct xdp_md *ctx)                                                                          \
	{                                                                                                              \
		return stamp(ctx, number);                                                                             \
	}                                                                                                              \
	SEC("xdp")                                                                                                     \
	int check##number(struct xdp_md *ctx)                                                                          \
	{                                                                                                              \
		return check(ctx, number);                                                                             \
	}

MARK(1)
MARK(2)
MARK(3)
MARK(4)
MARK(5)
MARK(6)
MARK(7)
MARK(8)

char _license[] SEC("license") = "Dual MIT/GPL";
