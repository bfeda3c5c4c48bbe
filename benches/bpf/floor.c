// The least that a program can do to a packet. FLOOR: what it does.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// Return the verdict, without a look at the packet.
#define TX 1
#define PASS 2
// Out of the interface OUT.
#define REDIRECT 3
// Twelve octets in front more, and a constant Ethernet, IPv4 and GRE header.
#define RESIZE 4
// The same with a look-up in a hash map, or in an array, of 48 octets, by the TEID of the packet.
#define HASH 5
#define ARRAY 6
// The latter with as many instructions behind the look-up as keep the processor from the next packet's while it waits for it.
#define APART 7

#define FILLERS 200

#define GROWTH 12
#define HEADER 40
#define TEID_AT 46
#define TEID_BASE 0x1000000

#if FLOOR == HASH
struct key {
	__u32 local;
	__u32 teid;
};
#else
struct key {
	__u32 index;
};
#endif

struct session {
	__u64 words[6];
};

struct {
	__uint(type, FLOOR == HASH ? BPF_MAP_TYPE_HASH : BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SESSIONS);
	__type(key, struct key);
	__type(value, struct session);
} sessions SEC(".maps");

SEC("xdp")
int least(struct xdp_md *ctx)
{
#if FLOOR == TX
	return XDP_TX;
#elif FLOOR == PASS
	return XDP_PASS;
#elif FLOOR == REDIRECT
	return bpf_redirect(OUT, 0);
#else
	void *data, *end;
	__u64 *header, found = 0;
	int i;

#if FLOOR == HASH || FLOOR == ARRAY || FLOOR == APART
	struct session *session;
	struct key key = {};

	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + TEID_AT + 4 > end)
		return XDP_DROP;
#if FLOOR == HASH
	key.local = *(__u32 *)(data + TEID_AT - 16);
	key.teid = *(__u32 *)(data + TEID_AT);
#else
	key.index = __builtin_bswap32(*(__u32 *)(data + TEID_AT)) - TEID_BASE;
#endif
	session = bpf_map_lookup_elem(&sessions, &key);
	if (!session)
		return XDP_DROP;
	found = session->words[0];
#endif
#if FLOOR == APART
	{
		__u64 one = 0, two = 0;

#pragma unroll
		for (i = 0; i < FILLERS / 2; i++)
			asm volatile("%0 += 1; %1 += 1" : "+r"(one), "+r"(two));
	}
#endif
	if (bpf_xdp_adjust_head(ctx, -GROWTH))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + HEADER > end)
		return XDP_DROP;
	header = data;
#pragma unroll
	for (i = 0; i < HEADER / 8; i++)
		header[i] = 0x0102030405060708 + found;
	return XDP_TX;
#endif
}

char _license[] SEC("license") = "Dual MIT/GPL";
