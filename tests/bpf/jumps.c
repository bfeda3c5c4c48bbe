// SPDX-License-Identifier: MIT OR Apache-2.0
/* A module that tail calls: the first octet behind the Ethernet header says which of its programs judges the packet. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

int mark(struct xdp_md *ctx);
int drop(struct xdp_md *ctx);
int again(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 8);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} table SEC(".maps") = {
	.values = {
		[0] = (void *)&mark,
		[1] = (void *)&drop,
		[3] = (void *)&again,
	},
};

/* As the array of an object whose own loader fills it. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} later SEC(".maps");

__u64 marked;

static __noinline int octet(struct xdp_md *ctx, __u32 at, __u8 add)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (at > 64 || data + at + 1 > end)
		return -1;
	data[at] += add;
	return data[at];
}

SEC("xdp")
int mark(struct xdp_md *ctx)
{
	__sync_fetch_and_add(&marked, 1);
	octet(ctx, ETH_HLEN + 1, 0x11);
	return XDP_PASS;
}

SEC("xdp")
int drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp")
int again(struct xdp_md *ctx)
{
	octet(ctx, ETH_HLEN + 1, 1);
	bpf_tail_call(ctx, &table, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int jumps(struct xdp_md *ctx)
{
	int index = octet(ctx, ETH_HLEN, 0);

	if (index < 0)
		return XDP_ABORTED;
	if (index >= 8) {
		bpf_tail_call(ctx, &later, index - 8);
		return XDP_PASS;
	}
	bpf_tail_call(ctx, &table, index);
	/* No program there. */
	return XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
