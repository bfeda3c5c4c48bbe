// SPDX-License-Identifier: MIT OR Apache-2.0
/* Counts frames of Ethernet type 0x88b5 by the number in their first four octets, in maps of many types. What includes it
 * says how the count of one number looks: `struct flow`, `COUNT(flow, octets)`, and `VERDICT`; and `KEPT`, in what way the octets of
 * the last frame are kept, which is 16 octets. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef FLOWS
#define FLOWS 4096
#endif

struct prefix {
	__u32 prefixlen;
	__u8 address[4];
};

#define COUNTS(name_, type_, flags_)                                                                                   \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_##type_);                                                                    \
		__uint(max_entries, FLOWS);                                                                            \
		__uint(map_flags, flags_);                                                                             \
		__type(key, __u32);                                                                                    \
		__type(value, struct flow);                                                                            \
	} name_ SEC(".maps")

COUNTS(flows, HASH, 0);
COUNTS(sparse, HASH, BPF_F_NO_PREALLOC);
COUNTS(recent, LRU_HASH, 0);
COUNTS(totals, PERCPU_HASH, 0);
COUNTS(slots, ARRAY, 0);
COUNTS(lanes, PERCPU_ARRAY, 0);

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, FLOWS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, struct flow);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, KEPT);
} kept_last SEC(".maps");

static __always_inline void count(void *map, const void *key, __u32 octets)
{
	static const struct flow zero;
	struct flow *flow = bpf_map_lookup_elem(map, key);

	if (!flow) {
		bpf_map_update_elem(map, key, &zero, BPF_NOEXIST);
		flow = bpf_map_lookup_elem(map, key);
	}
	if (flow)
		COUNT(flow, octets);
}

SEC("xdp")
int xdp_flows(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u32 *number = (void *)(eth + 1);
	struct prefix address = { .prefixlen = 32, .address = { 10 } };
	__u32 key, zero = 0, octets = end - data;
	__u64 *last;

	if ((void *)(number + 1) > end || eth->h_proto != bpf_htons(0x88b5))
		return XDP_PASS;
	key = *number;
	address.address[3] = key;
	count(&flows, &key, octets);
	count(&sparse, &key, octets);
	count(&recent, &key, octets);
	count(&totals, &key, octets);
	count(&slots, &key, octets);
	count(&lanes, &key, octets);
	struct flow *route = bpf_map_lookup_elem(&routes, &address);
	if (route)
		COUNT(route, octets);
	last = bpf_map_lookup_elem(&kept_last, &zero);
	if (last)
		*last = octets;
	return VERDICT;
}

char _license[] SEC("license") = "Dual MIT/GPL";
