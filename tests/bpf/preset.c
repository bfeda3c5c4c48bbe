// SPDX-License-Identifier: MIT OR Apache-2.0
/* A module that begins the packet context as a test wants it. */
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

SEC("xdp")
int preset(struct xdp_md *ctx)
{
	__u32 key = 0;
	struct context *from = bpf_map_lookup_elem(&wanted, &key);
	struct context *to = bpf_map_lookup_elem(&xdpchain_ctx, &key);

	if (!from || !to)
		return XDP_ABORTED;
	*to = *from;
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
