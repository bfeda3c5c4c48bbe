// SPDX-License-Identifier: MIT OR Apache-2.0
/* An object with a program, but none for XDP. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int not_for_xdp(struct __sk_buff *skb)
{
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
