// What one small module does: one header read, one per-CPU counter. The same for every way of putting it together.
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define COUNTER(name)                                    \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); \
		__uint(max_entries, 1);                  \
		__type(key, __u32);                      \
		__type(value, __u64);                    \
	} name SEC(".maps")

static __always_inline int slot(struct xdp_md *ctx, void *counter, __u16 refused)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u32 zero = 0;
	__u64 *count;

	if ((void *)(eth + 1) > end)
		return XDP_ABORTED;
	if (eth->h_proto == bpf_htons(refused))
		return XDP_DROP;
	count = bpf_map_lookup_elem(counter, &zero);
	if (count)
		(*count)++;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
