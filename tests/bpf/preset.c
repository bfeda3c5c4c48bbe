// SPDX-License-Identifier: MIT OR Apache-2.0
/* A module that begins the packet context as a test wants it. With octets that are skipped it puts some in front of the packet, where
 * there is room. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* As PacketContext in programs/abi. */
struct context {
	__u32 customer;
	__u32 session;
	__u32 tunnel;
	__u16 inner_len;
	__u16 reason;
	__u8 direction;
	__u8 qfi;
	__u8 has_qfi;
	__u8 verdict;
	__u8 outer_tos;
	__u8 ended;
	__u8 reserved[10];
};

/* Which of the reserved octets says how many octets are skipped. */
#define SKIPPED 3

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct context);
} xdpchain_ctx SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct context);
} wanted SEC(".maps");

#define FRONT 36
/* Where an IPv4 packet's source address begins. */
#define SOURCE 26

/* Whether FRONT octets are in front of the packet now. They look like its own beginning, with other addresses: who takes them for the
 * packet is to judge another one, and not to leave it to who knows better. */
static __always_inline int put_in_front(struct xdp_md *ctx)
{
	__u8 *data, *end;
	int i;

	if (bpf_xdp_adjust_head(ctx, -FRONT))
		return 0;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + 2 * FRONT > end)
		return 1;
#pragma unroll
	for (i = 0; i < FRONT; i++)
		data[i] = data[FRONT + i] ^ (i >= SOURCE);
	return 1;
}

SEC("xdp")
int preset(struct xdp_md *ctx)
{
	__u32 key = 0;
	struct context *from = bpf_map_lookup_elem(&wanted, &key);
	struct context *to = bpf_map_lookup_elem(&xdpchain_ctx, &key);

	if (!from || !to)
		return XDP_ABORTED;
	*to = *from;
	if (to->reserved[SKIPPED])
		to->reserved[SKIPPED] = put_in_front(ctx) ? FRONT : 0;
	return XDP_PASS;
}

/* The chain is to leave them to the modules behind this one. */
const char heeds_skipped SEC(".xdpchain_skipped") = 1;

char LICENSE[] SEC("license") = "Dual MIT/GPL";
