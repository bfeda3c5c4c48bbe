// SPDX-License-Identifier: MIT OR Apache-2.0
/* The far ends of the two links: each checks every numbered packet that arrives, counts it under its number, and keeps
 * a copy of one in SAMPLE_EVERY for user space. The cloud answers a packet by sending it back through its tunnel.
 *
 * No packet meets a socket buffer, so what is not counted here did not arrive. What a packet has to look like is written
 * in tests/src/plan.rs; the constants below are that page's. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAGIC 0x78646331 /* "xdc1" */
#define CUSTOMERS 3
#define SERVER4 0xc0000201 /* 192.0.2.1 */
#define SUBSCRIBERS4 0xac100000 /* 172.16.0.0 */
#define SUBSCRIBERS6 0x20010db8 /* 2001:db8::, then the subscriber's number as the third and fourth group */
#define CLOUD_GATEWAYS 0x0a14000a /* 10.20.0.10, plus the customer's number */
#define NODE_CLOUD 0x0a140001 /* 10.20.0.1 */
#define NODE_RAN 0x0a0a0001 /* 10.10.0.1 */
#define RAN 0x0a0a0002 /* 10.10.0.2 */
#define DOWNLINK_TEID 0x80000000
#define QFI 9
#define TTL_SENT 64
#define GTPU_PORT 2152
#define SAMPLE_EVERY 4999
#define SAMPLE_OCTETS 192

#define IP4_WORDS (sizeof(struct iphdr) / 2)

/* What the sender puts into the innermost payload, big-endian. */
struct numbered {
	__be32 magic;
	__be32 number;
	__be32 session;
	__be32 customer;
};

/* Index into `counters`. Everything from FIRST_WRONG on is a packet of ours that does not look as it should. */
enum counter {
	RIGHT,
	ANSWERED,
	OTHER,
	FIRST_WRONG,
	WRONG_OUTER = FIRST_WRONG,
	WRONG_TUNNEL,
	WRONG_INNER,
	WRONG_ADDRESS,
	WRONG_TTL,
	WRONG_CHECKSUM,
	WRONG_NUMBER,
	WRONG_CUSTOMER,
	COUNTERS,
};

struct sample {
	__u32 length;
	__u8 octets[SAMPLE_OCTETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* How often each number arrived; user space sets the size. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} samples SEC(".maps");

/* The innermost packet, as far as it was understood. */
struct inner {
	__u32 number;
	__u32 session;
	__u32 customer;
	__u8 ttl;
	/* Where the UDP header starts, and the addresses in front of it; for the answer. */
	struct udphdr *udp;
	struct iphdr *ip4;
	struct ipv6hdr *ip6;
};

static __always_inline void count(enum counter which)
{
	__u32 key = which;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		__sync_fetch_and_add(value, 1);
}

static __always_inline int sum_is_right(const struct iphdr *ip)
{
	const __u16 *words = (const void *)ip;
	__u32 sum = 0;

	for (unsigned int i = 0; i < IP4_WORDS; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* Whether the subscriber's address is that of the session: three customers have the same addresses. */
static __always_inline int is_subscriber4(__be32 address, __u32 session)
{
	return bpf_ntohl(address) == SUBSCRIBERS4 + 1 + session / CUSTOMERS;
}

static __always_inline int is_subscriber6(const struct in6_addr *address, __u32 session)
{
	return bpf_ntohl(address->in6_u.u6_addr32[0]) == SUBSCRIBERS6 &&
	       bpf_ntohl(address->in6_u.u6_addr32[1]) == 1 + session / CUSTOMERS;
}

/* Reads an inner packet. Returns RIGHT, or what is wrong with it; OTHER when it is not one of ours. */
static __always_inline enum counter read_inner(void *at, void *end, __u16 protocol, int uplink, struct inner *out)
{
	struct iphdr *ip4 = at;
	struct ipv6hdr *ip6 = at;
	struct udphdr *udp;
	struct numbered *numbered;

	if (protocol == ETH_P_IP) {
		if ((void *)(ip4 + 1) > end || ip4->version != 4 || ip4->ihl != 5 || ip4->protocol != IPPROTO_UDP)
			return OTHER;
		udp = (void *)(ip4 + 1);
		out->ttl = ip4->ttl;
		out->ip4 = ip4;
		out->ip6 = 0;
	} else {
		if ((void *)(ip6 + 1) > end || ip6->version != 6 || ip6->nexthdr != IPPROTO_UDP)
			return OTHER;
		udp = (void *)(ip6 + 1);
		out->ttl = ip6->hop_limit;
		out->ip6 = ip6;
		out->ip4 = 0;
	}
	numbered = (void *)(udp + 1);
	if ((void *)(numbered + 1) > end || bpf_ntohl(numbered->magic) != MAGIC)
		return OTHER;
	out->udp = udp;
	out->number = bpf_ntohl(numbered->number);
	out->session = bpf_ntohl(numbered->session);
	out->customer = bpf_ntohl(numbered->customer);
	if (out->customer != 1 + out->session % CUSTOMERS)
		return WRONG_CUSTOMER;
	if (protocol == ETH_P_IP) {
		__be32 subscriber = uplink ? ip4->saddr : ip4->daddr;
		__be32 server = uplink ? ip4->daddr : ip4->saddr;

		if (!is_subscriber4(subscriber, out->session) || bpf_ntohl(server) != SERVER4)
			return WRONG_ADDRESS;
		if (!sum_is_right(ip4))
			return WRONG_CHECKSUM;
	} else if (!is_subscriber6(uplink ? &ip6->saddr : &ip6->daddr, out->session)) {
		return WRONG_ADDRESS;
	}
	return RIGHT;
}

/* Copies a frame of at most SAMPLE_OCTETS; bpf_xdp_load_bytes() is there from Linux 5.18 on only. */
static __always_inline void copy(__u8 *to, const struct xdp_md *ctx)
{
	const __u8 *from = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	for (unsigned int i = 0; i < SAMPLE_OCTETS && from + i + 1 <= end; i++)
		to[i] = from[i];
}

/* Counts a packet under its number, and keeps a copy of some. */
static __always_inline enum counter take(struct xdp_md *ctx, const struct inner *inner)
{
	__u32 number = inner->number;
	__u32 *times = bpf_map_lookup_elem(&seen, &number);
	__u32 length = ctx->data_end - ctx->data;

	if (!times)
		return WRONG_NUMBER;
	__sync_fetch_and_add(times, 1);
	if (number % SAMPLE_EVERY == 0 && length <= SAMPLE_OCTETS) {
		struct sample *sample = bpf_ringbuf_reserve(&samples, sizeof(*sample), 0);

		if (sample) {
			sample->length = length;
			copy(sample->octets, ctx);
			bpf_ringbuf_submit(sample, 0);
		}
	}
	return RIGHT;
}

/* Swaps two fields of the same type. */
#define SWAP(a, b)                      \
	do {                            \
		__typeof__(a) old = a;  \
		a = b;                  \
		b = old;                \
	} while (0)

/* Sends the packet back the way it came: no checksum changes when two addresses or two ports change places. */
static __always_inline void turn_round(struct ethhdr *eth, struct iphdr *outer, struct inner *inner)
{
	for (int i = 0; i < ETH_ALEN; i++)
		SWAP(eth->h_dest[i], eth->h_source[i]);
	SWAP(outer->saddr, outer->daddr);
	SWAP(inner->udp->source, inner->udp->dest);
	if (inner->ip4)
		SWAP(inner->ip4->saddr, inner->ip4->daddr);
	if (inner->ip6)
		SWAP(inner->ip6->saddr, inner->ip6->daddr);
}

static __always_inline int wrong_or_pass(enum counter what)
{
	count(what);
	/* Somebody else's packet, ARP for one, is the kernel's. */
	return what == OTHER ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int cloud(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *outer = (void *)(eth + 1);
	__be16 *gre = (void *)(outer + 1);
	struct inner inner = {};
	enum counter what;
	__u16 protocol;

	if ((void *)(gre + 2) > end || eth->h_proto != bpf_htons(ETH_P_IP) || outer->protocol != IPPROTO_GRE)
		return wrong_or_pass(OTHER);
	protocol = bpf_ntohs(gre[1]);
	what = read_inner(gre + 2, end, protocol, 1, &inner);
	if (what != RIGHT)
		return wrong_or_pass(what);
	if (outer->version != 4 || outer->ihl != 5 || !sum_is_right(outer) ||
	    bpf_ntohs(outer->tot_len) != end - (void *)outer)
		return wrong_or_pass(WRONG_OUTER);
	if (gre[0] || bpf_ntohl(outer->saddr) != NODE_CLOUD || bpf_ntohl(outer->daddr) != CLOUD_GATEWAYS + inner.customer)
		return wrong_or_pass(WRONG_TUNNEL);
	if (inner.ttl != TTL_SENT - 1)
		return wrong_or_pass(WRONG_TTL);
	what = take(ctx, &inner);
	count(what);
	if (what != RIGHT)
		return XDP_DROP;
	turn_round(eth, outer, &inner);
	count(ANSWERED);
	return XDP_TX;
}

SEC("xdp")
int ran(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *outer = (void *)(eth + 1);
	struct udphdr *udp = (void *)(outer + 1);
	__u8 *gtp = (void *)(udp + 1);
	struct inner inner = {};
	enum counter what;
	__u32 teid;
	__u8 *at;

	if ((void *)(gtp + 16) > end || eth->h_proto != bpf_htons(ETH_P_IP) || outer->protocol != IPPROTO_UDP ||
	    outer->ihl != 5 || udp->dest != bpf_htons(GTPU_PORT))
		return wrong_or_pass(OTHER);
	teid = bpf_ntohl(*(__be32 *)(gtp + 4));
	at = gtp + 8;
	if (gtp[0] & 4) /* E: sequence, N-PDU number, next type; then one PDU Session Container of four octets */
		at = gtp + 16;
	if ((void *)(at + 1) > end)
		return wrong_or_pass(OTHER);
	what = read_inner(at, end, *at >> 4 == 4 ? ETH_P_IP : ETH_P_IPV6, 0, &inner);
	if (what != RIGHT)
		return wrong_or_pass(what);
	if (outer->version != 4 || !sum_is_right(outer) || bpf_ntohl(outer->saddr) != NODE_RAN ||
	    bpf_ntohl(outer->daddr) != RAN || bpf_ntohs(outer->tot_len) != end - (void *)outer ||
	    bpf_ntohs(udp->len) != end - (void *)udp)
		return wrong_or_pass(WRONG_OUTER);
	if (gtp[0] >> 5 != 1 || gtp[1] != 255 || teid != (DOWNLINK_TEID | inner.session) ||
	    bpf_ntohs(*(__be16 *)(gtp + 2)) != end - (void *)(gtp + 8))
		return wrong_or_pass(WRONG_TUNNEL);
	/* Sessions with an odd number have a QoS flow. */
	if (inner.session & 1 ? !(gtp[0] & 4) || gtp[11] != 0x85 || gtp[12] != 1 || (gtp[14] & 0x3f) != QFI :
				!!(gtp[0] & 7))
		return wrong_or_pass(WRONG_TUNNEL);
	if (inner.ttl != TTL_SENT - 2)
		return wrong_or_pass(WRONG_TTL);
	count(take(ctx, &inner));
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
