// Makes each run of a test run the first one: puts the length and the headers of the packet back, makes it a packet of a
// session drawn at random, and tail calls the program that is measured, which stays as it is.
//
// FRAME: octets of the packet. SESSIONS: how many sessions to draw from. TEID_AT and ADDRESS_AT: where the packet has the
// TEID and the session's part of the inner address, 0 for nowhere.
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// Octets that programs may change: the headers of every packet, and not more than the shortest one.
#define HEADERS 96
// As in frames.rs.
#define TEID_BASE 0x1000000
#define ADDRESS_BASE 0x0b000000

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64[HEADERS / 8]);
} headers SEC(".maps");

struct state {
	__u64 random;
	__u64 runs;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

SEC("xdp")
int harness(struct xdp_md *ctx)
{
	__u64 *data, *end, *from;
	struct state *now;
	__u32 zero = 0, index;
	int i;

	from = bpf_map_lookup_elem(&headers, &zero);
	now = bpf_map_lookup_elem(&state, &zero);
	if (!from || !now)
		return XDP_ABORTED;
	// Also when there is nothing to put back, so that it costs every program the same.
	if (bpf_xdp_adjust_head(ctx, (int)(ctx->data_end - ctx->data) - FRAME))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if ((void *)data + HEADERS > (void *)end)
		return XDP_ABORTED;
#pragma unroll
	for (i = 0; i < HEADERS / 8; i++)
		data[i] = from[i];
	now->random = now->random * 6364136223846793005ull + 1442695040888963407ull;
	index = (now->random >> 32) * SESSIONS >> 32;
	if (TEID_AT)
		*(__u32 *)((void *)data + TEID_AT) = bpf_htonl(TEID_BASE + index);
	if (ADDRESS_AT)
		*(__u32 *)((void *)data + ADDRESS_AT) = bpf_htonl(ADDRESS_BASE + index);
	// Locked, so that runs do not overlap.
	__sync_fetch_and_add(&now->runs, 1);
	bpf_tail_call(ctx, &target, 0);
	return XDP_ABORTED;
}

char _license[] SEC("license") = "Dual MIT/GPL";
