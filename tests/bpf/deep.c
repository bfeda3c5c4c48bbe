// SPDX-License-Identifier: MIT OR Apache-2.0
/* A module that needs nearly all of the stack that the kernel gives a program. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define WORDS 63

SEC("xdp")
int deep(struct xdp_md *ctx)
{
	volatile __u64 words[WORDS];
	int i;

#pragma unroll
	for (i = 0; i < WORDS; i++)
		words[i] = i;
	return words[WORDS - 1] == WORDS - 1 ? XDP_PASS : XDP_ABORTED;
}

char _license[] SEC("license") = "Dual MIT/GPL";
