// SPDX-License-Identifier: MIT OR Apache-2.0
/* A module that the verifier follows through some 600,000 instructions: it takes one of them, but not two in one program. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ROUNDS 150000

SEC("xdp")
int heavy(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u64 sum = 0;

	if ((void *)(eth + 1) > end)
		return XDP_ABORTED;
	if (eth->h_proto != bpf_htons(0x88b6))
		return XDP_PASS;
	for (__u32 i = 0; i < ROUNDS; i++) {
		sum += i;
		asm volatile("" : "+r"(sum));
	}
	return sum == (__u64)ROUNDS * (ROUNDS - 1) / 2 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
