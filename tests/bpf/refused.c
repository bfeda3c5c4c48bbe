// SPDX-License-Identifier: MIT OR Apache-2.0
/* A module that the verifier refuses: it reads the packet without comparing against its end. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int refused(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data;

	return data[12] == 8 ? XDP_PASS : XDP_DROP; /* no bounds check */
}

char _license[] SEC("license") = "Dual MIT/GPL";
