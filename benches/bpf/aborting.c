// A module that goes wrong with every packet.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int aborting(struct xdp_md *ctx)
{
	return XDP_ABORTED;
}

char _license[] SEC("license") = "Dual MIT/GPL";
