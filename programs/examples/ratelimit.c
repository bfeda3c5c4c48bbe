// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A token bucket for each IPv4 source address. An address that sends more than `rate` packets a
 * second, after a burst of `burst`, loses what is beyond.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NSEC_PER_SEC 1000000000ULL

/* Packets a second; set before loading. */
const volatile __u64 rate = 100000;
/* Packets that may come at once; may be changed while loaded. */
__u64 burst = 1000;
/* Packets dropped so far, by all CPUs together. */
__u64 dropped;

struct bucket {
	__u64 updated; /* nanoseconds since boot */
	__u64 credit;  /* nanoseconds that may be spent */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct bucket);
} buckets SEC(".maps");

/* Takes one packet out of the source's bucket; 0 when it is empty. */
static __noinline int take(__u32 source)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 cost = rate ? NSEC_PER_SEC / rate : NSEC_PER_SEC;
	__u64 most = burst * cost;
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, &source);
	struct bucket fresh;
	__u64 credit;

	if (!bucket) {
		fresh.updated = now;
		fresh.credit = most > cost ? most - cost : 0;
		bpf_map_update_elem(&buckets, &source, &fresh, BPF_ANY);
		return most >= cost;
	}
	/* Two CPUs may do this at once for one source; that lets a packet too many through, no more. */
	credit = bucket->credit + (now - bucket->updated);
	if (credit > most)
		credit = most;
	bucket->updated = now;
	if (credit < cost) {
		bucket->credit = credit;
		return 0;
	}
	bucket->credit = credit - cost;
	return 1;
}

SEC("xdp")
int xdp_ratelimit(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	if (take(ip->saddr))
		return XDP_PASS;
	__sync_fetch_and_add(&dropped, 1);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
