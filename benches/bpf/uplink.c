// What the data path's modules do to an uplink packet, written by hand as one function: the same checks and header, one change
// of the packet's length, and no slot, no context, no reasons. That a packet is to an address of ours is known from its session,
// whose key has the address.
//
// FIB: ask the kernel for the next hop of each packet; else the tunnel's entry has it.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define GTPU_PORT 2152
#define G_PDU 255
#define AF_INET 2
#define GRE_LEN 4

struct gtp_header {
	__u8 flags;
	__u8 type;
	__be16 length;
	__be32 teid;
};

struct session_key {
	__be32 local;
	__be32 teid;
};

struct session {
	__u32 customer;
	__u32 session;
	__be32 peer;
	__be32 inner4;
	__be32 inner6[2];
	__u32 flags;
};

struct tunnel {
	__be32 local;
	__be32 remote;
	__u32 out;
	__u8 addresses[12];
};

struct count {
	__u64 packets;
	__u64 octets;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SESSIONS);
	__type(key, struct session_key);
	__type(value, struct session);
} sessions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct tunnel);
} tunnels SEC(".maps");

// By verdict, as a chain counts.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct count);
} exits SEC(".maps");

struct outer {
	struct ethhdr link;
	struct iphdr ip;
	__be16 gre_flags;
	__be16 gre_protocol;
} __attribute__((packed));

// The octet at `at` of the packet; -1 beyond its end.
static __always_inline int octet_at(void *data, void *end, __u32 at)
{
	__u8 *octet = data + (at & 0x3ff);

	return (void *)(octet + 1) > end ? -1 : *octet;
}

static __always_inline int walk_extensions(void *data, void *end, __u32 at, __u32 limit, __u32 *payload)
{
	int next = octet_at(data, end, at + 3), len, i;

	at += 4;
	for (i = 0; i < 8 && next > 0; i++) {
		len = octet_at(data, end, at);
		if (len <= 0 || at + len * 4 > limit || at > 0x200)
			return -1;
		at += len * 4;
		next = octet_at(data, end, at - 1);
	}
	*payload = at;
	return next ? -1 : 0;
}

static __always_inline int forward(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *link = data;
	struct iphdr *ip = data + sizeof(*link), *inner;
	struct udphdr *udp = (void *)ip + sizeof(*ip);
	struct gtp_header *gtp = (void *)udp + sizeof(*udp);
	__u32 start = sizeof(*link) + sizeof(*ip) + sizeof(*udp) + sizeof(*gtp), limit, len, sum;
	struct session_key key;
	struct session *session;
	struct tunnel *tunnel;
	struct outer *outer;
	struct ipv6hdr *inner6;
	__u16 protocol;
	__u8 tos;

	if ((void *)(gtp + 1) > end || link->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	if (ip->ihl != 5 || ip->version != 4 || ip->frag_off & bpf_htons(0x3fff) || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	if (udp->dest != bpf_htons(GTPU_PORT))
		return XDP_PASS;
	len = bpf_ntohs(udp->len);
	if (bpf_ntohs(ip->tot_len) != len + sizeof(*ip) || data + sizeof(*link) + sizeof(*ip) + len > end)
		return XDP_DROP;
	if (gtp->flags >> 4 != 3 || gtp->type != G_PDU || !gtp->teid)
		return XDP_PASS;
	limit = bpf_ntohs(gtp->length) + start;
	if (limit > sizeof(*link) + sizeof(*ip) + len)
		return XDP_DROP;
	key.local = ip->daddr;
	key.teid = gtp->teid;
	session = bpf_map_lookup_elem(&sessions, &key);
	if (!session)
		return XDP_PASS;
	if (session->flags && session->peer != ip->saddr)
		return XDP_DROP;
	if (gtp->flags & 7) {
		if (gtp->flags & 4) {
			if (walk_extensions(data, end, start, limit, &start))
				return XDP_DROP;
		} else {
			start += 4;
		}
	}
	start &= 0x3ff;
	inner = data + start;
	if ((void *)(inner + 1) > end)
		return XDP_DROP;
	if (inner->version == 4) {
		protocol = bpf_htons(ETH_P_IP);
		len = bpf_ntohs(inner->tot_len);
		if (inner->ihl < 5 || start + len > limit)
			return XDP_DROP;
		if (!session->inner4 || inner->saddr != session->inner4)
			return XDP_DROP;
		if (inner->ttl <= 1 || (inner->daddr & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000))
			return XDP_DROP;
		sum = inner->check + bpf_htons(0x0100);
		inner->check = sum + (sum >= 0xffff);
		inner->ttl--;
		tos = inner->tos;
	} else {
		inner6 = data + start;
		if ((void *)(inner6 + 1) > end || inner6->version != 6)
			return XDP_DROP;
		protocol = bpf_htons(ETH_P_IPV6);
		len = bpf_ntohs(inner6->payload_len) + sizeof(*inner6);
		if (start + len > limit)
			return XDP_DROP;
		if (inner6->saddr.s6_addr32[0] != session->inner6[0] || inner6->saddr.s6_addr32[1] != session->inner6[1])
			return XDP_DROP;
		if (inner6->hop_limit <= 1 || inner6->daddr.s6_addr[0] == 0xff)
			return XDP_DROP;
		inner6->hop_limit--;
		tos = inner6->priority << 4 | inner6->flow_lbl[0] >> 4;
	}
	tunnel = bpf_map_lookup_elem(&tunnels, &session->customer);
	if (!tunnel)
		return XDP_DROP;
#if FIB
	struct bpf_fib_lookup fib = {};

	fib.family = AF_INET;
	fib.l4_protocol = IPPROTO_GRE;
	fib.tot_len = len + sizeof(*ip) + GRE_LEN;
	fib.ifindex = ctx->ingress_ifindex;
	fib.tos = tos;
	fib.ipv4_src = tunnel->local;
	fib.ipv4_dst = tunnel->remote;
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_DROP;
#endif
	if (bpf_xdp_adjust_head(ctx, (int)start - (int)sizeof(*outer)))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	outer = data;
	if ((void *)(outer + 1) > end)
		return XDP_DROP;
#if FIB
	__builtin_memcpy(outer->link.h_dest, fib.dmac, 6);
	__builtin_memcpy(outer->link.h_source, fib.smac, 6);
#else
	__builtin_memcpy(outer->link.h_dest, tunnel->addresses, 12);
#endif
	outer->link.h_proto = bpf_htons(ETH_P_IP);
	len += sizeof(*ip) + GRE_LEN;
	outer->ip.version = 4;
	outer->ip.ihl = 5;
	outer->ip.tos = tos;
	outer->ip.tot_len = bpf_htons(len);
	outer->ip.id = 0;
	outer->ip.frag_off = bpf_htons(0x4000);
	outer->ip.ttl = 64;
	outer->ip.protocol = IPPROTO_GRE;
	outer->ip.saddr = tunnel->local;
	outer->ip.daddr = tunnel->remote;
	sum = 0x4500 + tos + len + 0x4000 + 0x4000 + IPPROTO_GRE;
	sum += bpf_ntohs(tunnel->local & 0xffff) + bpf_ntohs(tunnel->local >> 16);
	sum += bpf_ntohs(tunnel->remote & 0xffff) + bpf_ntohs(tunnel->remote >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	outer->ip.check = bpf_htons(~sum);
	outer->gre_flags = 0;
	outer->gre_protocol = protocol;
#if FIB
	return bpf_redirect(fib.ifindex, 0);
#else
	return bpf_redirect(tunnel->out, 0);
#endif
}

SEC("xdp")
int uplink(struct xdp_md *ctx)
{
	// Octets of the frame when it ends, as a chain counts.
	int verdict = forward(ctx);
	__u32 index = verdict & 7;
	struct count *count = bpf_map_lookup_elem(&exits, &index);

	if (count) {
		count->packets++;
		count->octets += ctx->data_end - ctx->data;
	}
	return verdict;
}

char _license[] SEC("license") = "Dual MIT/GPL";
