// SPDX-License-Identifier: MIT OR Apache-2.0
/* A map with a million sessions of 56 octets each, as a data path has them. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct session_key {
	__be32 local;
	__be32 teid;
};

struct session {
	__u32 customer;
	__u32 session;
	__be32 peer;
	__be32 inner4;
	__u8 inner6[16];
	__u64 packets;
	__u32 flags;
	__u16 vlan;
	__u8 inner6_len;
	__u8 tags;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, struct session_key);
	__type(value, struct session);
} sessions SEC(".maps");

SEC("xdp")
int xdp_sessions(struct xdp_md *ctx)
{
	struct session_key key = {};
	struct session *found = bpf_map_lookup_elem(&sessions, &key);

	return found ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
