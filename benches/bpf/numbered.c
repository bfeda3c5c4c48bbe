// Counts what arrives, notes when each numbered packet came first and how often it came, and drops it.
// A numbered packet has MAGIC and its number behind Ethernet, IPv4 and UDP headers, in network order.
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PAYLOAD_AT 42

struct arrival {
	__u64 first; /* nanoseconds since boot; 0: never */
	__u64 times;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NUMBERS);
	__type(key, __u32);
	__type(value, struct arrival);
} arrivals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} arrived SEC(".maps");

SEC("xdp")
int numbered(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 *payload = data + PAYLOAD_AT;
	__u32 zero = 0, number;
	struct arrival *arrival;
	__u64 *count;

	count = bpf_map_lookup_elem(&arrived, &zero);
	if (count)
		(*count)++;
	if ((void *)(payload + 2) > end || payload[0] != bpf_htonl(MAGIC))
		return XDP_DROP;
	number = bpf_ntohl(payload[1]);
	arrival = bpf_map_lookup_elem(&arrivals, &number);
	if (!arrival)
		return XDP_DROP;
	if (__sync_fetch_and_add(&arrival->times, 1) == 0)
		arrival->first = bpf_ktime_get_ns();
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
