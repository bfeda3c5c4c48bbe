// SPDX-License-Identifier: MIT OR Apache-2.0
/* An object with two XDP programs, so that somebody has to say which one is meant. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int first_of_two(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int second_of_two(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
