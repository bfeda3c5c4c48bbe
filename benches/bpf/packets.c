// Stands before `acl`: makes the packet at hand one of many, drawn at random, and claims it for its customer.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define PACKETS 16384

struct packet {
	__u64 frame[8];
	__u32 customer;
	__u8 direction;
	__u8 decided;
	__u8 reserved[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PACKETS);
	__type(key, __u32);
	__type(value, struct packet);
} packets SEC(".maps");

// The state of the generator, and how many of the packets some rule decides on.
struct state {
	__u64 random;
	__u64 decided;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} state SEC(".maps");

struct PacketContext {
	__u32 customer;
	__u32 session;
	__u32 tunnel;
	__u16 inner_len;
	__u16 reason;
	__u8 direction;
	__u8 qfi;
	__u8 has_qfi;
	__u8 verdict;
	__u8 outer_tos;
	__u8 ended;
	__u8 reserved[10];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct PacketContext);
} xdpchain_ctx SEC(".maps");

SEC("xdp")
int packets_at_random(struct xdp_md *ctx)
{
	__u64 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct PacketContext *context;
	struct packet *packet;
	struct state *now;
	__u32 zero = 0, index;
	int i;

	now = bpf_map_lookup_elem(&state, &zero);
	context = bpf_map_lookup_elem(&xdpchain_ctx, &zero);
	if (!now || !context || data + 8 > end)
		return XDP_ABORTED;
	now->random = now->random * 6364136223846793005ull + 1442695040888963407ull;
	index = (now->random >> 33) & (PACKETS - 1);
	packet = bpf_map_lookup_elem(&packets, &index);
	if (!packet)
		return XDP_ABORTED;
#pragma unroll
	for (i = 0; i < 8; i++)
		data[i] = packet->frame[i];
	context->customer = packet->customer;
	context->direction = packet->direction;
	// Locked, so that runs do not overlap.
	__sync_fetch_and_add(&now->decided, packet->decided);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
