// SPDX-License-Identifier: MIT OR Apache-2.0
/* Reads the map of the first build of the module that counts flows. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Another name of the type, and of the field's types, is no other layout. */
struct flow_entry {
	unsigned int packets;
	unsigned int bytes;
	unsigned int spare;
	unsigned short kind;
	unsigned short reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_entry);
} seen SEC(".maps");

__u64 found;

SEC("xdp")
int xdp_reader(struct xdp_md *ctx)
{
	__u32 key = 1;
	struct flow_entry *flow = bpf_map_lookup_elem(&seen, &key);

	if (flow && flow->packets)
		__sync_fetch_and_add(&found, 1);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
