// SPDX-License-Identifier: MIT OR Apache-2.0
/* A module that notes what it finds of the last frame, and knows nothing of octets that others skip; unless HEEDS_SKIPPED, when it looks at
 * all of the frame, with them. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct found {
	__u32 len;
	__u32 packets;
	__u8 front[48];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct found);
} found SEC(".maps");

#ifdef TAIL_CALLS
/* Empty: whoever tail calls by it goes on. A chain calls such a module, and does not join it with others. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} nobody SEC(".maps");
#endif

SEC("xdp")
int looks(struct xdp_md *ctx)
{
	__u8 *data, *end;
	__u32 key = 0;
	struct found *now = bpf_map_lookup_elem(&found, &key);
	int i;

#ifdef TAIL_CALLS
	bpf_tail_call(ctx, &nobody, 0);
#endif
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (!now || data + sizeof(now->front) > end)
		return XDP_ABORTED;
	now->len = end - data;
	now->packets++;
#pragma unroll
	for (i = 0; i < sizeof(now->front); i++)
		now->front[i] = data[i];
	return XDP_PASS;
}

#ifdef HEEDS_SKIPPED
const char heeds_skipped SEC(".xdpchain_skipped") = 1;
#endif

char _license[] SEC("license") = "Dual MIT/GPL";
